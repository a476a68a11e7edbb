-- name: agreement
-- purpose: How often the picture is what the prompt asked for, if CLIP chooses the best of n candidates.
-- params: run_id (text, optional), clip_id (text, optional)
-- reads: scored_generations, runs
-- returns: prompt_set, best_of, num_prompts, all_right, object_right, color_right, background_right, layout_right, any_right; n = 1 is no reranking
-- The newest run that somebody judged: single prompts of `dalle generate` are newer, and nobody judges those.
with newest_judged as (
    select runs.run_id
    from runs
    where runs.run_id in (select scored_generations.run_id from scored_generations where scored_generations.all_right is not null)
    order by
        runs.started_at desc,
        runs.run_id
    limit 1
),

chosen as (
    select *
    from scored_generations
    where
        all_right is not null
        and if($clip_id is null, is_own, clip_id = $clip_id)
        and run_id = coalesce($run_id, (select newest_judged.run_id from newest_judged))
),

sizes as (
    select unnest([1, 4, 8, 16, 32, 64, 128, 256, 512]) as best_of
),

-- Disjoint groups of n candidates: every candidate is used once, so larger n has fewer groups, not the same ones again.
grouped as (
    select
        chosen.*,
        sizes.best_of,
        chosen.candidate_index // sizes.best_of as group_index,
        bool_or(chosen.all_right) over (
            partition by sizes.best_of, chosen.run_id, chosen.prompt_set, chosen.prompt_id, chosen.candidate_index // sizes.best_of
        ) as any_right,
        count(*) over (
            partition by sizes.best_of, chosen.run_id, chosen.prompt_set, chosen.prompt_id, chosen.candidate_index // sizes.best_of
        ) as group_size
    from chosen
    cross join sizes
),

winners as (
    select *
    from grouped
    where group_size = best_of
    qualify row_number() over (
        partition by best_of, run_id, prompt_set, prompt_id, group_index
        order by rank
    ) = 1
)

select
    prompt_set,
    best_of,
    count(distinct prompt_id) as num_prompts,
    avg(all_right::integer) as all_right,
    avg(object_right::integer) as object_right,
    avg(color_right::integer) as color_right,
    avg(background_right::integer) as background_right,
    avg(layout_right::integer) as layout_right,
    avg(any_right::integer) as any_right
from winners
group by
    prompt_set,
    best_of
order by
    prompt_set,
    best_of

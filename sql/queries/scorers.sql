-- name: scorers
-- purpose: Every CLIP that ranked the same pictures side by side: what the best of n is worth, for every n to 16, its doublings, and all candidates.
-- params: run_id (text, optional)
-- reads: scored_generations, latest_artifacts, artifacts, runs
-- returns: clip_id, source, is_own, prompt_set, best_of, num_prompts, mean_best_clip_score, all_right; exact means over all choices of n of the candidates
with scored as (
    select
        *,
        count(*) over (partition by clip_id, prompt_id) as num_candidates
    from scored_generations
    where run_id = coalesce($run_id, (select latest_artifacts.run_id from latest_artifacts where latest_artifacts.kind = 'generations'))
),

sizes as (
    select distinct best_of
    from (
        select
            unnest(range(1, 17) || [32, 64, 128, 256, 512, 1024, 2048, 4096, num_candidates]) as best_of,
            num_candidates
        from (select distinct num_candidates from scored)
    )
    where best_of <= num_candidates
),

-- Rank r is the best of n in C(N - r, n - 1) of the C(N, n) choices.
weighted as (
    select
        scored.*,
        sizes.best_of,
        sizes.best_of * exp(
            lgamma(num_candidates - rank + 1)
            + lgamma(greatest(num_candidates - sizes.best_of + 1, 1))
            - lgamma(greatest(num_candidates - rank - sizes.best_of + 2, 1))
            - lgamma(num_candidates + 1)
        ) as weight
    from scored
    inner join sizes on scored.rank <= scored.num_candidates - sizes.best_of + 1
),

sources as (
    select
        artifacts.artifact_id as clip_id,
        coalesce(
            nullif(any_value(runs.config -> 'clip' ->> 'pretrained'), ''), if(any_value(artifacts.kind) = 'clip', 'our own', 'our evaluator')
        ) as source
    from artifacts
    inner join runs on artifacts.made_by = runs.run_id
    where artifacts.kind in ('clip', 'evaluator')
    group by artifacts.artifact_id
)

select
    weighted.clip_id,
    sources.source,
    bool_or(weighted.is_own) as is_own,
    weighted.prompt_set,
    weighted.best_of,
    count(distinct weighted.prompt_id) as num_prompts,
    sum(weighted.weight * weighted.clip_score) / count(distinct weighted.prompt_id) as mean_best_clip_score,
    sum(weighted.weight * weighted.all_right::integer) / count(distinct weighted.prompt_id) as all_right
from weighted
left join sources on weighted.clip_id = sources.clip_id
group by
    weighted.clip_id,
    sources.source,
    weighted.prompt_set,
    weighted.best_of
order by
    is_own desc,
    weighted.clip_id,
    weighted.prompt_set,
    weighted.best_of

-- name: agreement_by_settings
-- purpose: How often the picture is what the prompt asked for, by the sampler's settings: temperature, top-k, top-p, guidance.
-- params: prompt_set (text, optional)
-- reads: judged_generations, runs, lineage, artifacts
-- returns: prompt_set, temperature, top_k, top_p, guidance, caption_dropout, transformer_id, num_runs, num_prompts, one, best_of_8, best_of_32, any_right; one is a picture without reranking
-- Runs that differ in their seed alone are averaged; the best of n is the exact mean over all choices of n of the candidates.
with judged as (
    select
        *,
        count(*) over (partition by run_id, prompt_id) as num_candidates
    from judged_generations
    where all_right is not null and prompt_set = coalesce($prompt_set, prompt_set)
),

sizes as (
    select unnest([1, 8, 32]) as best_of
),

weighted as (
    select
        judged.run_id,
        judged.prompt_set,
        judged.prompt_id,
        judged.all_right,
        sizes.best_of,
        sizes.best_of * exp(
            lgamma(judged.num_candidates - judged.rank + 1)
            + lgamma(greatest(judged.num_candidates - sizes.best_of + 1, 1))
            - lgamma(greatest(judged.num_candidates - judged.rank - sizes.best_of + 2, 1))
            - lgamma(judged.num_candidates + 1)
        ) as weight
    from judged
    inner join sizes on judged.rank <= judged.num_candidates - sizes.best_of + 1
),

prompts_of_runs as (
    select
        run_id,
        prompt_set,
        prompt_id,
        sum(weight * all_right::integer) filter (where best_of = 1) as one,
        sum(weight * all_right::integer) filter (where best_of = 8) as best_of_8,
        sum(weight * all_right::integer) filter (where best_of = 32) as best_of_32,
        bool_or(all_right)::integer as any_right
    from weighted
    group by
        run_id,
        prompt_set,
        prompt_id
),

settings as (
    select
        runs.run_id,
        (runs.config -> 'sampling' ->> 'temperature')::double as temperature,
        (runs.config -> 'sampling' ->> 'top_k')::integer as top_k,
        (runs.config -> 'sampling' ->> 'top_p')::double as top_p,
        (runs.config -> 'sampling' ->> 'guidance')::double as guidance,
        (trained.config -> 'train_transformer' ->> 'caption_dropout')::double as caption_dropout,
        lineage.parent_id as transformer_id
    from runs
    inner join lineage on runs.run_id = lineage.child_id and lineage.role = 'transformer'
    left join artifacts on lineage.parent_id = artifacts.artifact_id and artifacts.kind = 'transformer'
    left join runs as trained on artifacts.made_by = trained.run_id
    qualify row_number() over (partition by runs.run_id order by trained.started_at desc, trained.run_id) = 1
)

select
    prompts_of_runs.prompt_set,
    settings.temperature,
    settings.top_k,
    settings.top_p,
    settings.guidance,
    settings.caption_dropout,
    settings.transformer_id,
    count(distinct settings.run_id) as num_runs,
    count(distinct prompts_of_runs.prompt_id) as num_prompts,
    avg(prompts_of_runs.one) as one,
    avg(prompts_of_runs.best_of_8) as best_of_8,
    avg(prompts_of_runs.best_of_32) as best_of_32,
    avg(prompts_of_runs.any_right) as any_right
from prompts_of_runs
inner join settings on prompts_of_runs.run_id = settings.run_id
group by all
order by all

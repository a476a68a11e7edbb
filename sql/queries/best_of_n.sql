-- name: best_of_n
-- purpose: How the best CLIP score grows with the number of candidates.
-- params: run_id (text, optional), clip_id (text, optional)
-- reads: scored_generations, latest_artifacts
-- returns: prompt_set, best_of, num_prompts, mean_best_clip_score; n from 1 to all candidates
with running as (
    select
        prompt_set,
        prompt_id,
        candidate_index + 1 as best_of,
        max(clip_score) over (partition by prompt_set, prompt_id order by candidate_index) as best_clip_score
    from scored_generations
    where
        if($clip_id is null, is_own, clip_id = $clip_id)
        and run_id = coalesce($run_id, (select run_id from latest_artifacts where kind = 'generations'))
)

select
    prompt_set,
    best_of,
    count(*) as num_prompts,
    avg(best_clip_score) as mean_best_clip_score
from running
group by
    prompt_set,
    best_of
order by
    prompt_set,
    best_of

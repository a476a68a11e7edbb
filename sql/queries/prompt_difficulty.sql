-- name: prompt_difficulty
-- purpose: Which prompts are hard: how often a candidate is right, how good the best one is by CLIP, and how much candidates differ.
-- params: run_id (text, optional), prompt_set (text, optional), limit (integer = 20)
-- reads: judged_generations, latest_artifacts
-- returns: prompt_set, prompt, num_candidates, share_right, best_is_right, best_clip_score, mean_clip_score, spread; hardest first
select
    prompt_set,
    prompt,
    count(*) as num_candidates,
    avg(all_right::integer) as share_right,
    bool_or(all_right) filter (where rank = 1) as best_is_right,
    max(clip_score) as best_clip_score,
    avg(clip_score) as mean_clip_score,
    stddev_pop(clip_score) as spread
from judged_generations
where
    run_id = coalesce($run_id, (select latest_artifacts.run_id from latest_artifacts where latest_artifacts.kind = 'generations'))
    and prompt_set = coalesce($prompt_set, prompt_set)
group by
    prompt_set,
    prompt_id,
    prompt
order by
    share_right nulls last,
    best_clip_score,
    prompt_set,
    prompt
limit $limit

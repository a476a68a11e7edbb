-- name: best_generations
-- purpose: The best picture of each prompt by CLIP, with the checker's verdict.
-- params: prompt_set (text, optional), run_id (text, optional), limit (integer = 50)
-- reads: best_generations, latest_artifacts
-- returns: prompt_set, prompt, clip_score, all_right, image_path, generation_id; best first in each set
select
    prompt_set,
    prompt,
    clip_score,
    all_right,
    image_path,
    generation_id
from best_generations
where
    prompt_set = coalesce($prompt_set, prompt_set)
    and run_id = coalesce($run_id, (select run_id from latest_artifacts where kind = 'generations'))
order by
    prompt_set,
    clip_score desc,
    generation_id
limit $limit

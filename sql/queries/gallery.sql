-- name: gallery
-- purpose: The best picture of each prompt by CLIP, in no particular order, so that the first few are a fair sample.
-- params: run_id (text), prompt_set (text, optional), limit (integer = 16)
-- reads: best_generations
-- returns: generation_id, prompt_set, prompt, image_path, clip_score, rank, all_right, object_right, color_right, background_right, layout_right
select
    generation_id,
    prompt_set,
    prompt,
    image_path,
    clip_score,
    rank,
    all_right,
    object_right,
    color_right,
    background_right,
    layout_right
from best_generations
where
    run_id = $run_id
    and prompt_set = coalesce($prompt_set, prompt_set)
order by
    prompt_id,
    generation_id
limit $limit

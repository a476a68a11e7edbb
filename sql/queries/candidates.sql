-- name: candidates
-- purpose: All candidates of one prompt, as CLIP orders them.
-- params: prompt (text), run_id (text, optional)
-- reads: judged_generations, latest_artifacts
-- returns: rank, clip_score, all_right, object_right, color_right, background_right, layout_right, image_path, generation_id; best first
select
    rank,
    clip_score,
    all_right,
    object_right,
    color_right,
    background_right,
    layout_right,
    image_path,
    generation_id
from judged_generations
where
    prompt = $prompt
    and run_id = coalesce($run_id, (select run_id from latest_artifacts where kind = 'generations'))
order by rank

-- name: lowest_clip_scores
-- purpose: The pairs that match worst by CLIP, to see what a threshold would remove.
-- params: clip_id (text, optional), limit (integer = 20)
-- reads: clip_scores, pairs, latest_artifacts
-- returns: clip_score, caption, image_url, pair_id; worst first
select
    clip_scores.clip_score,
    pairs.caption,
    pairs.image_url,
    pairs.pair_id
from clip_scores
inner join pairs on clip_scores.pair_id = pairs.pair_id
where clip_scores.clip_id = coalesce($clip_id, (select artifact_id from latest_artifacts where kind = 'clip'))
order by
    clip_scores.clip_score,
    pairs.pair_id
limit $limit

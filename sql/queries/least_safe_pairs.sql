-- name: least_safe_pairs
-- purpose: The pairs with the highest safety scores, to see what a threshold would remove.
-- params: limit (integer = 20)
-- reads: safety_scores, pairs
-- returns: safety_id, nsfw_score, watermark_score, caption, image_url, pair_id; worst first
select
    safety_scores.safety_id,
    safety_scores.nsfw_score,
    safety_scores.watermark_score,
    pairs.caption,
    pairs.image_url,
    safety_scores.pair_id
from safety_scores
inner join pairs on safety_scores.pair_id = pairs.pair_id
order by
    greatest(safety_scores.nsfw_score, safety_scores.watermark_score) desc,
    safety_scores.pair_id
limit $limit

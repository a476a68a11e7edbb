-- name: best_pairs
-- purpose: The pairs that match best by CLIP.
-- params: clip_id (text, optional), limit (integer = 20)
-- reads: clip_scores, pairs, latest_artifacts
-- returns: clip_score, caption, image_url, pair_id; best first
select
    max(clip_scores.clip_score) as clip_score,
    any_value(pairs.caption order by pairs.source) as caption,
    any_value(pairs.image_url order by pairs.source) as image_url,
    pairs.pair_id
from clip_scores
inner join pairs on clip_scores.pair_id = pairs.pair_id
where clip_scores.clip_id = coalesce($clip_id, (select artifact_id from latest_artifacts where kind = 'clip'))
group by pairs.pair_id
order by
    clip_score desc,
    pairs.pair_id
limit $limit

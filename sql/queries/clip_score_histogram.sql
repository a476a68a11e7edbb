-- name: clip_score_histogram
-- purpose: How CLIP scores of pairs are spread, to choose a threshold.
-- params: clip_id (text, optional), bin_width (number = 0.02)
-- reads: clip_scores, latest_artifacts
-- returns: score_from, score_to, num_pairs, share_at_least; lowest first
with bins as (
    select
        floor(clip_score / $bin_width)::integer as bin,
        count(*) as num_pairs
    from clip_scores
    where clip_id = coalesce($clip_id, (select artifact_id from latest_artifacts where kind = 'clip'))
    group by bin
)

select
    round(bin * $bin_width, 6) as score_from,
    round((bin + 1) * $bin_width, 6) as score_to,
    num_pairs,
    sum(num_pairs) over (order by bin desc) / sum(num_pairs) over () as share_at_least
from bins
order by bin

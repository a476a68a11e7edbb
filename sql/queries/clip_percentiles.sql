-- name: clip_percentiles
-- purpose: The CLIP score at each percentile, with how many pairs a threshold there keeps of each split.
-- params: clip_id (text, optional), step (integer = 10)
-- reads: clip_scores, pairs, latest_artifacts
-- returns: percentile, clip_score, num_kept, num_kept_validation, share_kept; lowest first
with scores as (
    select distinct
        clip_scores.pair_id,
        clip_scores.clip_score,
        pairs.split
    from clip_scores
    inner join pairs on clip_scores.pair_id = pairs.pair_id
    where clip_scores.clip_id = coalesce($clip_id, (select artifact_id from latest_artifacts where kind = 'clip'))
),

percentiles as (
    select
        unnest(range(0, 100, $step)) as percentile,
        (select quantile_cont(clip_score, [i / 100 for i in range(0, 100, $step)]) from scores) as thresholds
),

placed as (
    select
        percentile,
        thresholds[percentile // $step + 1] as threshold
    from percentiles
)

select
    placed.percentile,
    placed.threshold as clip_score,
    count(*) as num_kept,
    count(*) filter (where scores.split = 'validation') as num_kept_validation,
    count(*) / (select count(*) from scores) as share_kept
from placed
inner join scores on placed.threshold <= scores.clip_score
group by
    placed.percentile,
    placed.threshold
order by placed.percentile

-- name: safety_scores
-- purpose: How the safety scores are spread, and how many pairs a threshold would leave out.
-- params: num_bins (integer = 10)
-- reads: safety_scores
-- returns: safety_id, score, from_score, num_pairs, num_at_least; by classifier and score
with scores as (
    select
        safety_id,
        'nsfw' as score,
        nsfw_score as value
    from safety_scores
    union all
    select
        safety_id,
        'watermark' as score,
        watermark_score as value
    from safety_scores
),

binned as (
    select
        safety_id,
        score,
        least(floor(value::double * $num_bins::integer), $num_bins::integer - 1) / $num_bins::integer as from_score,
        count(*) as num_pairs
    from scores
    group by all
)

select
    safety_id,
    score,
    from_score,
    num_pairs,
    sum(num_pairs) over (partition by safety_id, score order by from_score desc)::bigint as num_at_least
from binned
order by
    safety_id,
    score,
    from_score

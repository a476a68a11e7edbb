-- name: safety_scores_are_shares
-- purpose: Safety scores are numbers in [0, 1], one row per pair and classifier, of pairs that exist.
-- reads: safety_scores, pairs
-- returns: problem, safety_id, pair_id
select
    'not in [0, 1]' as problem,
    safety_id,
    pair_id
from safety_scores
where
    isnan(nsfw_score)
    or isnan(watermark_score)
    or nsfw_score not between 0 and 1
    or watermark_score not between 0 and 1
union all
select
    'counted twice' as problem,
    safety_id,
    pair_id
from safety_scores
group by
    safety_id,
    pair_id
having count(*) > 1
union all
select
    'no such pair' as problem,
    safety_scores.safety_id,
    safety_scores.pair_id
from safety_scores
anti join pairs on safety_scores.pair_id = pairs.pair_id
order by
    problem,
    safety_id,
    pair_id

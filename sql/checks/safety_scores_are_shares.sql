-- name: safety_scores_are_shares
-- purpose: Safety scores are numbers in [0, 1], one row per pair and classifier in each part.
-- reads: safety_scores
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
    pair_id,
    part_path
having count(*) > 1
order by
    problem,
    safety_id,
    pair_id

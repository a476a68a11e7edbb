-- name: drop_reasons
-- purpose: Why candidates were left out, by stage.
-- params: source (text, optional)
-- reads: dropped_pairs
-- returns: stage, reason, num_dropped, share, example; most frequent first
select
    funnel_stage(stage, reason) as stage,
    reason,
    count(*) as num_dropped,
    count(*) / sum(count(*)) over () as share,
    min(detail) as example
from dropped_pairs
where source = coalesce($source, source)
group by
    funnel_stage(stage, reason),
    reason
order by
    num_dropped desc,
    stage,
    reason

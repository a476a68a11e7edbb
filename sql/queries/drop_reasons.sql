-- name: drop_reasons
-- purpose: Why candidates were left out, by stage.
-- params: source (text, optional)
-- reads: dropped_pairs
-- returns: stage, reason, num_dropped, share, example; most frequent first
select
    stage,
    reason,
    count(*) as num_dropped,
    count(*) / sum(count(*)) over () as share,
    min(detail) as example
from dropped_pairs
where source = coalesce($source, source)
group by
    stage,
    reason
order by
    num_dropped desc,
    stage,
    reason

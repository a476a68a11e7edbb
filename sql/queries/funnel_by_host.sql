-- name: funnel_by_host
-- purpose: What each host contributed, how far its candidates came, and what most of its losses are.
-- params: source (text, optional), limit (integer = 50)
-- reads: outcomes
-- returns: host, num_found, num_candidates, num_downloaded, num_decoded, num_kept, share_kept, top_reason, num_top_reason; most found first
with reasons as (
    select
        host,
        stage,
        reason,
        count(*) as num_candidates
    from outcomes
    where source = coalesce($source, source)
    group by
        host,
        stage,
        reason
)

select
    host,
    sum(num_candidates)::bigint as num_found,
    coalesce(sum(num_candidates) filter (where stage <> 'discover'), 0)::bigint as num_candidates,
    coalesce(sum(num_candidates) filter (where stage in ('decode', 'filter', 'kept')), 0)::bigint as num_downloaded,
    coalesce(sum(num_candidates) filter (where stage in ('filter', 'kept')), 0)::bigint as num_decoded,
    coalesce(sum(num_candidates) filter (where stage = 'kept'), 0)::bigint as num_kept,
    coalesce(sum(num_candidates) filter (where stage = 'kept'), 0) / sum(num_candidates) as share_kept,
    arg_max(reason, (num_candidates, reason)) filter (where stage <> 'kept') as top_reason,
    max(num_candidates) filter (where stage <> 'kept') as num_top_reason
from reasons
group by host
order by
    num_found desc,
    host
limit $limit

-- name: funnel_by_source
-- purpose: What each source contributed, and how far its candidates came.
-- reads: outcomes
-- returns: source, num_hosts, num_found, num_candidates, num_downloaded, num_decoded, num_kept, share_kept; most found first
select
    source,
    count(distinct host) as num_hosts,
    count(*) as num_found,
    count(*) filter (where stage <> 'discover') as num_candidates,
    count(*) filter (where stage in ('decode', 'filter', 'kept')) as num_downloaded,
    count(*) filter (where stage in ('filter', 'kept')) as num_decoded,
    count(*) filter (where stage = 'kept') as num_kept,
    count(*) filter (where stage = 'kept') / count(*) as share_kept
from outcomes
group by source
order by
    num_found desc,
    source

-- name: collections
-- purpose: What every collection of every source brought, to see a source grow or fall ill.
-- params: source (text, optional), limit (integer = 100)
-- reads: collections, collection_counts
-- returns: collection_id, source, number, finished_at, num_pages, num_hosts, num_found, num_candidates, num_downloaded, num_decoded, num_kept, share_kept; newest first
select
    collections.collection_id,
    any_value(collections.source) as source,
    any_value(collections.number) as number,
    any_value(collections.finished_at) as finished_at,
    any_value((collections.facts ->> 'num_pages')::bigint) as num_pages,
    count(distinct counts.host) as num_hosts,
    sum(counts.num_candidates)::bigint as num_found,
    coalesce(sum(counts.num_candidates) filter (where counts.stage <> 'discover'), 0)::bigint as num_candidates,
    coalesce(sum(counts.num_candidates) filter (where counts.stage in ('decode', 'filter', 'kept')), 0)::bigint as num_downloaded,
    coalesce(sum(counts.num_candidates) filter (where counts.stage in ('filter', 'kept')), 0)::bigint as num_decoded,
    coalesce(sum(counts.num_candidates) filter (where counts.stage = 'kept'), 0)::bigint as num_kept,
    coalesce(sum(counts.num_candidates) filter (where counts.stage = 'kept'), 0) / sum(counts.num_candidates) as share_kept
from collections
inner join collection_counts as counts on collections.collection_id = counts.collection_id
where collections.source = coalesce($source, collections.source)
group by collections.collection_id
order by
    finished_at desc,
    collections.collection_id
limit $limit

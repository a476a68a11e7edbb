-- name: collection_reasons
-- purpose: How many candidates came to which end in the newest collection of each source, and how many in the one before.
-- params: source (text, optional), host (text, optional)
-- reads: collections, collection_counts
-- returns: source, stage, reason, num_candidates, num_before, difference; most changed first; num_before is null for a first collection
with places as (
    select
        collection_id,
        source,
        row_number() over (partition by source order by number desc) as age
    from collections
    where source = coalesce($source, source)
    qualify age <= 2
),

ends as (
    select
        places.source,
        counts.stage,
        counts.reason,
        coalesce(sum(counts.num_candidates) filter (where places.age = 1), 0)::bigint as num_candidates,
        coalesce(sum(counts.num_candidates) filter (where places.age = 2), 0)::bigint as num_before
    from collection_counts as counts
    inner join places on counts.collection_id = places.collection_id
    where counts.host = coalesce($host, counts.host)
    group by
        places.source,
        counts.stage,
        counts.reason
)

select
    source,
    stage,
    reason,
    num_candidates,
    if(source in (select places.source from places where places.age = 2), num_before, null) as num_before,
    if(source in (select places.source from places where places.age = 2), num_candidates - num_before, null) as difference
from ends
order by
    abs(num_candidates - num_before) desc,
    source,
    stage,
    reason

-- name: changed_candidates
-- purpose: Which addresses are new, gone, newly failing or recovered in the newest collection of each source.
-- params: root (text), source (text, optional), change (text, optional), limit (integer = 100)
-- reads: changed_candidates
-- returns: source, collection_id, change, host, outcome, was, url; by change, host and address
select
    source,
    collection_id,
    change,
    host,
    outcome,
    was,
    url
from changed_candidates($root)
where
    source = coalesce($source, source)
    and change = coalesce($change, change)
order by
    source,
    change,
    host,
    url
limit $limit

-- name: collection_changes
-- purpose: What is new, gone, newly failing or recovered in a collection, against the one of the same source before it.
-- params: root (text), source (text, optional), examples (integer = 3)
-- reads: changed_candidates
-- returns: source, collection_id, change, outcome, was, num_candidates, example_urls; of the newest collection of each source, most frequent first
select
    source,
    collection_id,
    change,
    outcome,
    was,
    count(*) as num_candidates,
    list_slice(list(url order by url), 1, $examples) as example_urls
from changed_candidates($root)
where source = coalesce($source, source)
group by
    source,
    collection_id,
    change,
    outcome,
    was
order by
    source,
    num_candidates desc,
    change,
    outcome,
    was

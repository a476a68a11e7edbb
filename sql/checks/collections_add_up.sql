-- name: collections_add_up
-- purpose: The counts of a collection are as many as the candidates in its file.
-- reads: ingested_parts, collection_counts
-- returns: part_path, num_expected, num_counted
select
    ingested_parts.part_path,
    any_value(ingested_parts.num_rows) as num_expected,
    coalesce(sum(collection_counts.num_candidates), 0)::bigint as num_counted
from ingested_parts
left join collection_counts on ingested_parts.part_path = collection_counts.part_path
where ingested_parts.artifact_kind = 'collected'
group by ingested_parts.part_path
having any_value(ingested_parts.num_rows) <> coalesce(sum(collection_counts.num_candidates), 0)
order by ingested_parts.part_path

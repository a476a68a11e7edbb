-- name: insert_collection_counts
-- purpose: Insert how many candidates of each host came to which end in one collection.
-- params: file (text), part_path (text)
-- returns: nothing
insert into collection_counts (collection_id, host, stage, reason, num_candidates, part_path)
with footer as (
    select decode(value)::json as facts
    from parquet_kv_metadata($file)
    where decode(key) = 'collection'
),

rows as (
    select
        host_of(url, page_url) as host,
        funnel_stage(stage, reason) as stage,
        reason
    from read_parquet($file, hive_partitioning = false)
)

select
    any_value((footer.facts ->> 'source') || '-' || (footer.facts ->> 'number')) as collection_id,
    rows.host,
    rows.stage,
    rows.reason,
    count(*),
    $part_path
from rows
cross join footer
group by
    rows.host,
    rows.stage,
    rows.reason

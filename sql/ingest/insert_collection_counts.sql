-- name: insert_collection_counts
-- purpose: Insert how many candidates of each host came to which end in one collection.
-- params: file (text), part_path (text)
-- returns: nothing
insert into collection_counts (collection_id, host, stage, reason, num_candidates, part_path)
with beside as (
    select json as facts
    from read_json_objects(replace($file, '.parquet', '.json'))
),

rows as (
    select
        host_of(url, page_url) as host,
        funnel_stage(stage, reason) as stage,
        reason
    from read_parquet($file, hive_partitioning = false)
)

select
    any_value((beside.facts ->> 'source') || '-' || (beside.facts ->> 'number')) as collection_id,
    rows.host,
    rows.stage,
    rows.reason,
    count(*),
    $part_path
from rows
cross join beside
group by
    rows.host,
    rows.stage,
    rows.reason

-- name: insert_collection
-- purpose: Insert the facts of one collection from the footer of its Parquet file.
-- params: file (text), part_path (text)
-- returns: nothing
insert into collections (collection_id, source, number, finished_at, facts, part_path)
with footer as (
    select decode(value)::json as facts
    from parquet_kv_metadata($file)
    where decode(key) = 'collection'
)

select
    (facts ->> 'source') || '-' || (facts ->> 'number') as collection_id,
    facts ->> 'source',
    (facts ->> 'number')::integer,
    (facts ->> 'finished_at')::timestamp,
    facts,
    $part_path
from footer

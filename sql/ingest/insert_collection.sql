-- name: insert_collection
-- purpose: Insert the facts of one collection from the file beside its Parquet file.
-- params: file (text), part_path (text)
-- returns: nothing
insert into collections (collection_id, source, number, finished_at, facts, part_path)
with beside as (
    select json as facts
    from read_json_objects(replace($file, '.parquet', '.json'))
)

select
    (facts ->> 'source') || '-' || (facts ->> 'number') as collection_id,
    facts ->> 'source',
    (facts ->> 'number')::integer,
    (facts ->> 'finished_at')::timestamp,
    facts,
    $part_path
from beside

-- name: insert_run_speed
-- purpose: Insert how fast one run went from its speed.jsonl.
-- params: file (text), run_id (text)
-- returns: nothing
insert into run_speed (run_id, step, name, value)
with lines as (
    select json as line
    from read_ndjson_objects($file, ignore_errors = true)
),

names as (
    select
        line,
        unnest(json_keys(line)) as name
    from lines
)

select
    $run_id,
    (line ->> 'step')::bigint as step,
    name,
    try_cast(line ->> name as double) as value
from names
where name <> 'step'

-- name: insert_run_metrics
-- purpose: Insert the loss curves of one run from its metrics.jsonl, without rates and times.
-- params: file (text), run_id (text)
-- returns: nothing
insert into run_metrics (run_id, step, split, name, value)
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
    coalesce(line ->> 'split', 'train') as split,
    name,
    (line ->> name)::double as value
from names
where
    name not in ('step', 'split')
    and not name like '%\_s' escape '\'

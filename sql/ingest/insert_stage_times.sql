-- name: insert_stage_times
-- purpose: Insert the stage times of one pipeline run.
-- params: file (text), pipeline_run_id (text)
-- returns: nothing
insert into stage_times (pipeline_run_id, position, stage, was_skipped, started_at, duration_s)
select
    $pipeline_run_id,
    row_number() over () - 1,
    stage,
    coalesce(was_skipped, false),
    make_timestamp((started_at * 1e6)::bigint),
    duration_s
from read_json($file, format = 'newline_delimited', columns = {
    stage: 'varchar', was_skipped: 'boolean', started_at: 'double', duration_s: 'double'
})

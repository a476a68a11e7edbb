-- name: stage_times
-- purpose: How long each stage of a pipeline run took.
-- params: pipeline_run_id (text, optional)
-- reads: stage_times
-- returns: pipeline_run_id, stage, was_skipped, started_at, duration_s; in order, of the newest run unless one is named
with chosen as (
    select coalesce($pipeline_run_id, (select max_by(pipeline_run_id, started_at) from stage_times)) as pipeline_run_id
)

select
    pipeline_run_id,
    stage,
    was_skipped,
    started_at,
    duration_s
from stage_times
where pipeline_run_id = (select pipeline_run_id from chosen)
order by position

-- name: runs
-- purpose: What ran, when, for how long, and with which result.
-- params: job (text, optional)
-- reads: runs
-- returns: started_at, job, run_id, duration_s, inputs, result, config; oldest first
select
    started_at,
    job,
    run_id,
    duration_s,
    inputs,
    result,
    config
from runs
where job = coalesce($job, job)
order by
    started_at,
    run_id

-- name: job_times
-- purpose: How long the last run of each job took.
-- reads: runs
-- returns: job, run_id, started_at, duration_s; in the order they ran
select
    job,
    run_id,
    started_at,
    duration_s
from runs
qualify row_number() over (partition by job order by started_at desc) = 1
order by
    started_at,
    job

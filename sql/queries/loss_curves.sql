-- name: loss_curves
-- purpose: What was logged while networks trained.
-- params: job (text, optional), run_id (text, optional), name (text, optional)
-- reads: run_metrics, runs
-- returns: job, run_id, split, name, step, value; by run, name and step
select
    runs.job,
    run_metrics.run_id,
    run_metrics.split,
    run_metrics.name,
    run_metrics.step,
    run_metrics.value
from run_metrics
inner join runs on run_metrics.run_id = runs.run_id
where
    runs.job = coalesce($job, runs.job)
    and runs.run_id = coalesce($run_id, runs.run_id)
    and run_metrics.name = coalesce($name, run_metrics.name)
order by
    runs.job,
    run_metrics.run_id,
    run_metrics.name,
    run_metrics.split,
    run_metrics.step

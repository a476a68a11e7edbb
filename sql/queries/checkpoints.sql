-- name: checkpoints
-- purpose: Which weights and training states the runs keep, how large they are, and which network they are of.
-- params: run_id (text, optional)
-- reads: checkpoints, runs, artifacts
-- returns: job, run_id, step, kind, network_id, num_bytes, path; newest run first
select
    runs.job,
    checkpoints.run_id,
    checkpoints.step,
    checkpoints.kind,
    any_value(artifacts.artifact_id) as network_id,
    checkpoints.num_bytes,
    checkpoints.path
from checkpoints
inner join runs on checkpoints.run_id = runs.run_id
left join artifacts on checkpoints.path = artifacts.path and checkpoints.run_id = artifacts.made_by
where checkpoints.run_id = coalesce($run_id, checkpoints.run_id)
group by
    all
order by
    any_value(runs.started_at) desc,
    checkpoints.run_id,
    checkpoints.kind desc,
    checkpoints.step

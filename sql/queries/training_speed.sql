-- name: training_speed
-- purpose: How fast trainings went, how much memory they took, and how long they waited for data.
-- params: job (text, optional), run_id (text, optional)
-- reads: training_rates
-- returns: job, run_id, step, num_processes, pairs_per_s, tokens_per_s, mfu, memory_bytes, data_wait_share; by run and step
select
    job,
    run_id,
    step,
    num_processes,
    pairs_per_s,
    tokens_per_s,
    mfu,
    memory_bytes,
    data_wait_share
from training_rates
where
    job = coalesce($job, job)
    and run_id = coalesce($run_id, run_id)
order by
    job,
    run_id,
    step

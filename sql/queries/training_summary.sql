-- name: training_summary
-- purpose: What each training took and where it ended, one line a run.
-- params: job (text, optional)
-- reads: runs, run_metrics, training_rates
-- returns: started_at, job, run_id, num_steps, duration_s, num_processes, pairs_per_s, tokens_per_s, mfu, memory_bytes, data_wait_share, gradient_norm, train_loss, validation_loss; newest first
with ends as (
    select
        run_id,
        max(step) as num_steps,
        max_by(value, step) filter (where name = 'gradient_norm') as gradient_norm,
        max_by(value, step) filter (where name = 'loss' and split = 'train') as train_loss,
        max_by(value, step) filter (where name = 'loss' and split = 'validation') as validation_loss
    from run_metrics
    group by run_id
),

-- Medians: a checkpoint or a look at the validation split makes one stretch slow, not the training.
rates as (
    select
        run_id,
        max(num_processes) as num_processes,
        median(pairs_per_s) as pairs_per_s,
        median(tokens_per_s) as tokens_per_s,
        median(mfu) as mfu,
        max(memory_bytes) as memory_bytes,
        median(data_wait_share) as data_wait_share
    from training_rates
    group by run_id
)

select
    runs.started_at,
    runs.job,
    runs.run_id,
    ends.num_steps,
    runs.duration_s,
    rates.num_processes,
    rates.pairs_per_s,
    rates.tokens_per_s,
    rates.mfu,
    rates.memory_bytes,
    rates.data_wait_share,
    ends.gradient_norm,
    ends.train_loss,
    ends.validation_loss
from runs
inner join ends on runs.run_id = ends.run_id
left join rates on runs.run_id = rates.run_id
where runs.job = coalesce($job, runs.job)
order by
    runs.started_at desc,
    runs.run_id

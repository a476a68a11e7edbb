-- name: gradient_norms
-- purpose: How large the gradient of each part of a network was, to see one that vanishes or explodes.
-- params: run_id (text, optional), step (integer, optional)
-- reads: run_metrics, latest_artifacts
-- returns: run_id, step, part, gradient_norm; of the newest transformer and its last logged step unless others are named
with logged as (
    select
        run_id,
        step,
        name as part,
        value as gradient_norm
    from run_metrics
    where
        split = 'gradients'
        and run_id = coalesce($run_id, (select run_id from latest_artifacts where kind = 'transformer'))
)

select
    run_id,
    step,
    part,
    gradient_norm
from logged
where step = coalesce($step, (select max(logged.step) from logged))
order by part

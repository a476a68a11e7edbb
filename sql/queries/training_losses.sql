-- name: training_losses
-- purpose: What a transformer had left to learn of a text token and of an image token.
-- params: run_id (text, optional)
-- reads: run_metrics, latest_artifacts
-- returns: run_id, split, step, text_nats, text_bits, image_nats, image_bits; of the newest transformer unless a run is named
with losses as (
    select
        run_id,
        split,
        step,
        max(value) filter (where name = 'text_loss') as text_nats,
        max(value) filter (where name = 'image_loss') as image_nats
    from run_metrics
    where
        run_id = coalesce($run_id, (select run_id from latest_artifacts where kind = 'transformer'))
        and name in ('text_loss', 'image_loss')
    group by
        run_id,
        split,
        step
)

select
    run_id,
    split,
    step,
    text_nats,
    text_nats / ln(2) as text_bits,
    image_nats,
    image_nats / ln(2) as image_bits
from losses
order by
    split,
    step

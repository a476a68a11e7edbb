-- name: dvae_health
-- purpose: Whether a dVAE's codebook stays alive while it trains, by what validation saw.
-- params: run_id (text, optional)
-- reads: run_metrics, latest_artifacts
-- returns: run_id, step, psnr, kl_nats, kl_bits, perplexity, codes_used, codes_dead, top_code_share; of the newest dVAE unless a run is named
with looks as (
    select
        run_id,
        step,
        max(value) filter (where name = 'psnr') as psnr,
        max(value) filter (where name = 'kl_nats') as kl_nats,
        max(value) filter (where name = 'perplexity') as perplexity,
        max(value) filter (where name = 'codes_used')::integer as codes_used,
        max(value) filter (where name = 'codes_dead')::integer as codes_dead,
        max(value) filter (where name = 'top_code_share') as top_code_share
    from run_metrics
    where
        split = 'validation'
        and run_id = coalesce($run_id, (select run_id from latest_artifacts where kind = 'dvae'))
    group by
        run_id,
        step
)

select
    run_id,
    step,
    psnr,
    kl_nats,
    kl_nats / ln(2) as kl_bits,
    perplexity,
    codes_used,
    codes_dead,
    top_code_share
from looks
order by step

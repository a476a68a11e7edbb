-- name: training_rates
-- purpose: How fast trainings went, stretch by stretch, all processes together.
-- reads: run_speed, runs
-- returns: job, run_id, step, num_processes, pairs_per_s, tokens_per_s, mfu, memory_bytes, data_wait_share
create or replace view training_rates as
with measured as (
    select
        run_id,
        step,
        coalesce(max(value) filter (where name = 'num_processes'), 1)::integer as num_processes,
        max(value) filter (where name = 'pairs_per_s') as pairs_per_s_per_process,
        max(value) filter (where name = 'mfu') as mfu,
        max(value) filter (where name = 'memory_bytes')::bigint as memory_bytes,
        max(value) filter (where name = 'data_wait_share') as data_wait_share
    from run_speed
    group by
        run_id,
        step
),

-- What one pair is to the network: the image grid for the dVAE, text and image grid for the transformer. A CLIP has no tokens of its own.
chosen as (
    select
        *,
        pow((config -> 'dvae' ->> 'image_size')::integer // (config -> 'dvae' ->> 'downsample')::integer, 2)::integer as image_tokens,
        case job
            when 'train_dvae' then image_tokens
            when 'train_transformer' then image_tokens + (config -> 'tokenizer' ->> 'max_text_tokens')::integer
        end as tokens_per_pair
    from runs
)

select
    chosen.job,
    measured.run_id,
    measured.step,
    measured.num_processes,
    measured.pairs_per_s_per_process * measured.num_processes as pairs_per_s,
    measured.pairs_per_s_per_process * measured.num_processes * chosen.tokens_per_pair as tokens_per_s,
    measured.mfu,
    measured.memory_bytes,
    measured.data_wait_share
from measured
inner join chosen on measured.run_id = chosen.run_id;

comment on view training_rates is 'Speed of trainings, one row per run and logged step; tokens_per_s counts the positions of the network''s stream.';
comment on column training_rates.num_processes is 'Processes of the training.';
comment on column training_rates.pairs_per_s is 'Pairs a second, all processes together.';
comment on column training_rates.tokens_per_s is 'Positions of the network a second, all processes together; null for a CLIP.';
comment on column training_rates.mfu is 'Share of the peak arithmetic of the device that was used; null where the peak is not known.';
comment on column training_rates.memory_bytes is 'Most memory of a device that one process took, bytes.';
comment on column training_rates.data_wait_share is 'Share of the time that was spent waiting for data.';

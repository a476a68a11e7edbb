-- name: 0008_run_speed
-- purpose: How fast the runs went and what they waited for, apart from the numbers that are the same when a run is repeated.

create table run_speed (
    run_id varchar not null,
    step bigint not null,
    name varchar not null,
    value double
);
comment on table run_speed is 'Speed of trainings over time, from speed.jsonl: rates, waiting, memory. Differs between repeats of a run.';
comment on column run_speed.run_id is 'The run.';
comment on column run_speed.step is 'Optimiser update at the end of the stretch that was measured; twice when a resumed run went through it twice.';
comment on column run_speed.name is 'What was measured, e.g. pairs_per_s (of one process), data_wait_share, memory_bytes, mfu.';
comment on column run_speed.value is 'The number.';

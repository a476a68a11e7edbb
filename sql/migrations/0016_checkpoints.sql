-- name: 0016_checkpoints
-- purpose: Which weights and training states each run keeps on disk.

create table checkpoints (
    run_id varchar not null,
    path varchar not null,
    kind varchar not null,
    step bigint,
    num_bytes bigint not null
);
comment on table checkpoints is 'Folders of weights and of training states that finished runs keep, as they were when the run was catalogued.';
comment on column checkpoints.run_id is 'The run that wrote it.';
comment on column checkpoints.path is 'The folder, relative to the data root.';
comment on column checkpoints.kind is 'weights: a network that can be used; state: what a training continues from.';
comment on column checkpoints.step is 'Optimiser update after which it was written; null where the folder does not say.';
comment on column checkpoints.num_bytes is 'Size of its files, bytes.';

-- name: 0004_runs
-- purpose: What ran with which settings, what it read and made, its loss curves, and how long the stages took.

create table runs (
    run_id varchar not null,
    job varchar not null,
    config json not null,
    inputs json not null,
    result json not null,
    files_sha256 varchar not null,
    git_commit varchar,
    provenance json not null,
    timings json not null,
    started_at timestamp,
    duration_s double
);
comment on table runs is 'Finished runs of jobs, from their run directories (runs/<run_id>/).';
comment on column runs.run_id is 'Name of the run directory: the job and a fingerprint of everything that decides its result.';
comment on column runs.job is 'The program, e.g. train_transformer.';
comment on column runs.config is 'All settings, as in config.json, but for the paths of the machine.';
comment on column runs.inputs is 'Names of inputs to ids and to paths under the data root.';
comment on column runs.result is 'What was made and the final numbers, as in result.json, but for times.';
comment on column runs.files_sha256 is 'SHA-256 of config.json, result.json and metrics.jsonl as read; differs between repeats, which take different times.';
comment on column runs.git_commit is 'Commit of the code; null outside a checkout.';
comment on column runs.provenance is 'Versions, host and process, as in job.json.';
comment on column runs.timings is 'Numbers of result.json that depend on the machine: names that end in _s, such as images_per_s.';
comment on column runs.started_at is 'When the run that finished was started, UTC.';
comment on column runs.duration_s is 'How long it took, seconds; after a kill, since the last start.';

create table run_metrics (
    run_id varchar not null,
    step bigint not null,
    split varchar not null,
    name varchar not null,
    value double
);
comment on table run_metrics is 'Loss curves and other logged numbers, one row per run, step, split and name. Rates and times are left out.';
comment on column run_metrics.run_id is 'The run.';
comment on column run_metrics.step is 'Optimiser update, from 0.';
comment on column run_metrics.split is 'train or validation.';
comment on column run_metrics.name is 'What was measured, e.g. image_loss.';
comment on column run_metrics.value is 'The number; null where it was not finite.';

create table artifacts (
    artifact_id varchar not null,
    kind varchar not null,
    path varchar not null,
    made_by varchar not null
);
comment on table artifacts is 'Things that were made: tokenizers, networks, token files, training sets, generations.';
comment on column artifacts.artifact_id is 'Content id, e.g. a dvae_id; for files without one, their path.';
comment on column artifacts.kind is 'tokenizer, dvae, clip, transformer, text_tokens, image_tokens, codebook_usage, clip_scores, training_set, generations or evaluations.';
comment on column artifacts.path is 'Where it lies, relative to the data root.';
comment on column artifacts.made_by is 'The run that made it, or the training set''s own id.';

create table lineage (
    child_id varchar not null,
    parent_id varchar not null,
    role varchar not null
);
comment on table lineage is 'What was made from what: edges from a run (or training set) to its inputs. Walk it with ancestors(id).';
comment on column lineage.child_id is 'A run_id or a training_set_id.';
comment on column lineage.parent_id is 'Id of an input: an artifact_id, or the content id of the pairs.';
comment on column lineage.role is 'What the parent was used as, e.g. tokenizer.';

create table stage_times (
    pipeline_run_id varchar not null,
    position integer not null,
    stage varchar not null,
    was_skipped boolean not null,
    started_at timestamp not null,
    duration_s double not null
);
comment on table stage_times is 'How long each stage of a pipeline run took, from stage_times/<pipeline_run_id>.jsonl.';
comment on column stage_times.pipeline_run_id is 'The execution of the pipeline.';
comment on column stage_times.position is 'Place of the stage, from 0.';
comment on column stage_times.stage is 'Name of the stage.';
comment on column stage_times.was_skipped is 'Whether its result existed already.';
comment on column stage_times.started_at is 'When it started, UTC.';
comment on column stage_times.duration_s is 'How long it took, seconds.';

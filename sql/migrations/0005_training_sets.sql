-- name: 0005_training_sets
-- purpose: Which pairs a transformer was trained on, and the query that chose them.

create table training_sets (
    training_set_id varchar not null,
    query varchar not null,
    query_sql varchar not null,
    parameters json not null,
    tokenizer_id varchar not null,
    dvae_id varchar not null,
    clip_id varchar not null,
    num_rows bigint not null,
    num_pairs bigint not null,
    num_validation bigint not null,
    num_sources bigint not null,
    num_pages bigint not null,
    sources varchar[] not null,
    path varchar not null,
    part_path varchar not null
);
comment on table training_sets is 'Exported training sets: the one arrow from tables to files.';
comment on column training_sets.training_set_id is 'Hash of the query, its parameters and the content of everything it read.';
comment on column training_sets.query is 'Name of the query in sql/training_sets/.';
comment on column training_sets.query_sql is 'Text of the query as it was run.';
comment on column training_sets.parameters is 'Values of its parameters.';
comment on column training_sets.tokenizer_id is 'Tokenizer of the text tokens.';
comment on column training_sets.dvae_id is 'dVAE of the image tokens.';
comment on column training_sets.clip_id is 'CLIP whose scores the query could select by.';
comment on column training_sets.num_rows is 'Rows: pairs times crops.';
comment on column training_sets.num_pairs is 'Different pairs, train and validation.';
comment on column training_sets.num_validation is 'Different pairs of the validation split.';
comment on column training_sets.num_sources is 'Different sources of the pairs.';
comment on column training_sets.num_pages is 'Different pages of the pairs.';
comment on column training_sets.sources is 'Names of the sources.';
comment on column training_sets.path is 'Folder of the Parquet parts, relative to the data root.';
comment on column training_sets.part_path is 'The manifest that describes the export.';

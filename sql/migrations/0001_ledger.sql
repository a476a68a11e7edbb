-- name: 0001_ledger
-- purpose: Which files the catalog was fed from, so that every row can be traced to a file and no file counts twice.

create table ingested_parts (
    part_path varchar not null,
    artifact_kind varchar not null,
    sha256 varchar not null,
    num_rows bigint not null,
    num_bytes bigint not null,
    ingested_at timestamp not null
);
comment on table ingested_parts is 'Ledger: the files whose rows are in this catalog. A row is written in the same transaction as the rows of its file.';
comment on column ingested_parts.part_path is 'Path of the file relative to the data root; tables fed from files carry the same column.';
comment on column ingested_parts.artifact_kind is 'What the file holds: pairs, dropped_pairs, text_tokens, image_tokens, codebook_usage, clip_scores, training_set, prompts, generations or evaluations.';
comment on column ingested_parts.sha256 is 'SHA-256 of the bytes of the file: the same file with other content replaces its rows.';
comment on column ingested_parts.num_rows is 'Rows of the file.';
comment on column ingested_parts.num_bytes is 'Size of the file, bytes.';
comment on column ingested_parts.ingested_at is 'When its rows were inserted, UTC.';

create table replaced_parts (
    part_path varchar not null,
    artifact_kind varchar not null,
    old_sha256 varchar not null,
    new_sha256 varchar,
    num_old_rows bigint not null,
    ingested_at timestamp not null
);
comment on table replaced_parts is 'History of this catalog file: parts whose rows were taken out because the file changed or vanished. Not rebuilt from files.';
comment on column replaced_parts.part_path is 'Path of the file relative to the data root.';
comment on column replaced_parts.artifact_kind is 'What the file held.';
comment on column replaced_parts.old_sha256 is 'SHA-256 of the content whose rows were removed.';
comment on column replaced_parts.new_sha256 is 'SHA-256 of the content that took its place; null when the file is gone.';
comment on column replaced_parts.num_old_rows is 'Rows that were removed.';
comment on column replaced_parts.ingested_at is 'When they were removed, UTC.';

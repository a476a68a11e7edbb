-- name: 0011_prompt_origins
-- purpose: Which query gave the prompts of a batch, and which rows could not be used as prompts, with their reasons.

alter table prompts add column query_sql varchar;
comment on column prompts.query_sql is 'The SQL on the catalog whose rows the prompts are; null for prompts from elsewhere.';

create table dropped_prompts (
    run_id varchar not null,
    prompt_id varchar not null,
    prompt varchar not null,
    prompt_set varchar not null,
    reason varchar not null,
    detail varchar not null,
    part_path varchar not null
);
comment on table dropped_prompts is 'Rows that no pictures were made for, because they are no prompts or cannot be used as such.';
comment on column dropped_prompts.run_id is 'The generate_images run.';
comment on column dropped_prompts.prompt_id is 'Hash of the text.';
comment on column dropped_prompts.prompt is 'The text, or the beginning of the line that could not be read.';
comment on column dropped_prompts.prompt_set is 'Set of the prompt.';
comment on column dropped_prompts.reason is 'malformed, not_text, empty, too_long, duplicate or bad_image.';
comment on column dropped_prompts.detail is 'What was seen, for people.';
comment on column dropped_prompts.part_path is 'Parquet file that holds the row.';

-- name: 0006_generations
-- purpose: Prompts, the pictures made for them, their CLIP ranks, and the checker's verdicts.

create table prompts (
    prompt_id varchar not null,
    prompt varchar not null,
    prompt_set varchar not null,
    expected json,
    part_path varchar not null
);
comment on table prompts is 'Texts that pictures were asked for.';
comment on column prompts.prompt_id is 'Hash of the text.';
comment on column prompts.prompt is 'The text.';
comment on column prompts.prompt_set is 'Where it came from: training, unseen_scene, held_out_pair, or the user''s own name.';
comment on column prompts.expected is 'The scene it describes, for the demo''s checker; null for free text.';
comment on column prompts.part_path is 'Parquet file that holds the row.';

create table generations (
    generation_id varchar not null,
    run_id varchar not null,
    prompt_id varchar not null,
    prompt varchar not null,
    prompt_set varchar not null,
    candidate_index integer not null,
    seed bigint not null,
    image_path varchar not null,
    part_path varchar not null
);
comment on table generations is 'Pictures that were made, one row per candidate. Their tokens stay in Parquet; read them with generation_tokens(root).';
comment on column generations.generation_id is 'Hash of the run, the prompt and the candidate''s place.';
comment on column generations.run_id is 'The generate_images run: settings, checkpoint and networks.';
comment on column generations.prompt_id is 'The prompt.';
comment on column generations.prompt is 'Text of the prompt.';
comment on column generations.prompt_set is 'Set of the prompt.';
comment on column generations.candidate_index is 'Place among the candidates of the prompt, from 0.';
comment on column generations.seed is 'Seed that makes the same picture again.';
comment on column generations.image_path is 'The picture, relative to the data root.';
comment on column generations.part_path is 'Parquet file that holds the row and the image tokens.';

create table rerank_scores (
    generation_id varchar not null,
    clip_id varchar not null,
    clip_score float not null,
    rank integer not null,
    part_path varchar not null
);
comment on table rerank_scores is 'How well each picture matches its prompt, and its place among the candidates.';
comment on column rerank_scores.generation_id is 'The picture.';
comment on column rerank_scores.clip_id is 'The CLIP that scored it.';
comment on column rerank_scores.clip_score is 'Cosine similarity of picture and prompt, in [-1, 1].';
comment on column rerank_scores.rank is 'Place among the candidates of its prompt; 1 is the best.';
comment on column rerank_scores.part_path is 'Parquet file that holds the row.';

create table evaluations (
    generation_id varchar not null,
    run_id varchar not null,
    prompt_set varchar not null,
    object_right boolean not null,
    color_right boolean not null,
    background_right boolean not null,
    layout_right boolean not null,
    all_right boolean not null,
    part_path varchar not null
);
comment on table evaluations is 'What the demo''s checker sees in each picture, compared with what the prompt asked for.';
comment on column evaluations.generation_id is 'The picture.';
comment on column evaluations.run_id is 'The evaluate run.';
comment on column evaluations.prompt_set is 'Set of the prompt.';
comment on column evaluations.object_right is 'Whether the object is right.';
comment on column evaluations.color_right is 'Whether the colour is right.';
comment on column evaluations.background_right is 'Whether the background is right.';
comment on column evaluations.layout_right is 'Whether number and place are right.';
comment on column evaluations.all_right is 'Whether all four are right.';
comment on column evaluations.part_path is 'Parquet file that holds the row.';

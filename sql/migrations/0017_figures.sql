-- name: 0017_figures
-- purpose: How good the pictures are as numbers: retrieval by a CLIP that did not choose, distances of distributions, copies, reconstructions.

create table figures (
    run_id varchar not null,
    generations_run varchar not null,
    figure varchar not null,
    pictures varchar not null,
    prompt_set varchar,
    best_of integer,
    blur_radius float,
    value double not null,
    low double,
    high double,
    num_samples bigint not null,
    space varchar not null,
    note varchar,
    part_path varchar not null
);
comment on table figures is 'How good the pictures of a batch are, one row per figure, with intervals over prompts or pictures.';
comment on column figures.run_id is 'The evaluate run.';
comment on column figures.generations_run is 'The generate_images run whose pictures were measured.';
comment on column figures.figure is 'What was measured: retrieval, clip_score, diversity, frechet, kid, cmmd, copies, copied_tokens, copied_features, psnr, ssim, codes_used or perplexity.';
comment on column figures.pictures is 'Of which pictures: drawn, real (kept apart from training), training, reconstructed by the dVAE, or chance.';
comment on column figures.prompt_set is 'Set of the prompts of drawn pictures; seen_caption are those whose captions occur in training.';
comment on column figures.best_of is 'Candidates from which the CLIP that ranks chose; 1 is no choice.';
comment on column figures.blur_radius is 'Standard deviation of the Gaussian blur on both sides, pixels.';
comment on column figures.value is 'The figure; retrieval and copies are shares, psnr is in dB, cmmd is times 1,000.';
comment on column figures.low is 'Lower end of the 95% interval; null where there is none.';
comment on column figures.high is 'Upper end of the 95% interval; null where there is none.';
comment on column figures.num_samples is 'Independent prompts or pictures it rests on.';
comment on column figures.space is 'Whose features: a CLIP, pixels, or the tokens of a dVAE. Distances of other features cannot be compared.';
comment on column figures.note is 'What to bear in mind, e.g. that the sample is small.';
comment on column figures.part_path is 'Parquet file that holds the row.';
comment on column ingested_parts.artifact_kind is 'What the file holds: pairs, dropped_pairs, text_tokens, image_tokens, codebook_usage, clip_scores, training_set, prompts, generations, rerank_scores, evaluations or figures.';

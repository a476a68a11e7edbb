-- name: 0003_tokens
-- purpose: Text tokens, where the image tokens lie, how often each is used, and CLIP scores of pairs.

create table text_tokens (
    pair_id bigint not null,
    tokenizer_id varchar not null,
    text_tokens usmallint[] not null,
    num_text_tokens integer not null,
    is_truncated boolean not null,
    part_path varchar not null
);
comment on table text_tokens is 'Captions as BPE ids, one row per pair and tokenizer.';
comment on column text_tokens.pair_id is 'The pair.';
comment on column text_tokens.tokenizer_id is 'The BPE tokenizer.';
comment on column text_tokens.text_tokens is 'BPE ids without padding.';
comment on column text_tokens.num_text_tokens is 'Length of the list.';
comment on column text_tokens.is_truncated is 'Whether the caption was longer than the model reads and was cut.';
comment on column text_tokens.part_path is 'Parquet part that holds the row.';

create table image_token_shards (
    part_path varchar not null,
    dvae_id varchar not null,
    num_images bigint not null,
    min_image_tokens integer not null,
    max_image_tokens integer not null,
    min_pair_id bigint,
    max_pair_id bigint
);
comment on table image_token_shards is 'Where the image tokens lie. The tokens stay in Parquet; read them with image_tokens(root).';
comment on column image_token_shards.part_path is 'Parquet part with columns pair_id, crop, image_tokens.';
comment on column image_token_shards.dvae_id is 'The dVAE whose codebook the tokens index.';
comment on column image_token_shards.num_images is 'Rows of the part: images times crops.';
comment on column image_token_shards.min_image_tokens is 'Fewest tokens of one image; equals the most, or a check complains.';
comment on column image_token_shards.max_image_tokens is 'Most tokens of one image: the square of the image grid''s size.';
comment on column image_token_shards.min_pair_id is 'Smallest pair_id of the part.';
comment on column image_token_shards.max_pair_id is 'Largest pair_id of the part.';

create table codebook_usage (
    dvae_id varchar not null,
    image_token integer not null,
    occurrences bigint not null,
    part_path varchar not null
);
comment on table codebook_usage is 'How often each image token occurs in the tokenised pairs, one row per token and dVAE.';
comment on column codebook_usage.dvae_id is 'The dVAE.';
comment on column codebook_usage.image_token is 'Entry of the codebook, from 0.';
comment on column codebook_usage.occurrences is 'How often it occurs; 0 for a dead entry.';
comment on column codebook_usage.part_path is 'Parquet file that holds the counts.';

create table clip_scores (
    pair_id bigint not null,
    clip_id varchar not null,
    clip_score float not null,
    part_path varchar not null
);
comment on table clip_scores is 'How well image and caption match, one row per pair and CLIP.';
comment on column clip_scores.pair_id is 'The pair.';
comment on column clip_scores.clip_id is 'The CLIP that scored it.';
comment on column clip_scores.clip_score is 'Cosine similarity of image and caption, in [-1, 1].';
comment on column clip_scores.part_path is 'Parquet part that holds the row.';

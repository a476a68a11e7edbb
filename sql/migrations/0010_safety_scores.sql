-- name: 0010_safety_scores
-- purpose: How likely a picture is not safe for work or has a watermark, by a named classifier.

create table safety_scores (
    pair_id bigint not null,
    safety_id varchar not null,
    nsfw_score float not null,
    watermark_score float not null,
    part_path varchar not null
);
comment on table safety_scores is 'What a safety classifier thinks of a picture, one row per pair and classifier.';
comment on column safety_scores.pair_id is 'The pair.';
comment on column safety_scores.safety_id is 'The classifier: hash of its CLIP and of its prompts or weights.';
comment on column safety_scores.nsfw_score is 'Not safe for work, in [0, 1].';
comment on column safety_scores.watermark_score is 'Has a watermark, in [0, 1].';
comment on column safety_scores.part_path is 'Parquet part that holds the row.';

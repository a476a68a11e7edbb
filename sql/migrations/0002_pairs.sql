-- name: 0002_pairs
-- purpose: Images with captions, without their bytes, and the candidates that were dropped on the way.

create table pairs (
    pair_id bigint not null,
    caption varchar not null,
    width integer not null,
    height integer not null,
    sha256 varchar not null,
    pixel_sha256 varchar not null,
    split varchar not null,
    num_caption_words integer not null,
    aspect_ratio float not null,
    language varchar not null,
    source varchar not null,
    page_url varchar not null,
    image_url varchar not null,
    candidate_id varchar not null,
    part_path varchar not null
);
comment on table pairs is 'Usable pairs: an image with a caption. The image bytes stay in the Parquet part.';
comment on column pairs.pair_id is 'Hash of the image bytes and the caption; the same in every file and table.';
comment on column pairs.caption is 'Caption as found on the page, white space tidied.';
comment on column pairs.width is 'Width of the image, pixels.';
comment on column pairs.height is 'Height of the image, pixels.';
comment on column pairs.sha256 is 'SHA-256 of the downloaded bytes.';
comment on column pairs.pixel_sha256 is 'SHA-256 of the decoded RGB pixels: equal for the same picture in two encodings.';
comment on column pairs.split is 'train or validation, by a hash of the picture.';
comment on column pairs.num_caption_words is 'Words in the caption.';
comment on column pairs.aspect_ratio is 'Long side over short side.';
comment on column pairs.language is 'ISO 639-1 code of the caption''s language.';
comment on column pairs.source is 'Name of the source the pair was found in.';
comment on column pairs.page_url is 'Page that shows the image.';
comment on column pairs.image_url is 'Address the bytes came from.';
comment on column pairs.candidate_id is 'Hash of the address and the caption, given before the download.';
comment on column pairs.part_path is 'Parquet part that holds the row and the image bytes.';

create table dropped_pairs (
    candidate_id varchar not null,
    source varchar not null,
    stage varchar not null,
    reason varchar not null,
    detail varchar not null,
    caption varchar not null,
    image_url varchar not null,
    page_url varchar not null,
    part_path varchar not null
);
comment on table dropped_pairs is 'Candidates that did not become pairs, each with its reason.';
comment on column dropped_pairs.candidate_id is 'Hash of the address and the caption.';
comment on column dropped_pairs.source is 'Name of the source the candidate was found in.';
comment on column dropped_pairs.stage is 'Where it was dropped: discover, download, filter or tokenize.';
comment on column dropped_pairs.reason is 'Code of the reason, from a closed set.';
comment on column dropped_pairs.detail is 'What was seen, for people.';
comment on column dropped_pairs.caption is 'Caption as found.';
comment on column dropped_pairs.image_url is 'Address of the image.';
comment on column dropped_pairs.page_url is 'Page that shows the image.';
comment on column dropped_pairs.part_path is 'Parquet part that holds the row.';

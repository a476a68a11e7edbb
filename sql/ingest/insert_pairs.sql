-- name: insert_pairs
-- purpose: Insert the pairs of one Parquet part, without the image bytes.
-- params: file (text), part_path (text)
-- returns: nothing
insert into pairs (
    pair_id, caption, width, height, sha256, pixel_sha256, split, num_caption_words,
    aspect_ratio, language, source, page_url, image_url, candidate_id, licence, document, part_path
)
select
    pair_id,
    caption,
    width,
    height,
    sha256,
    pixel_sha256,
    split,
    num_caption_words,
    aspect_ratio,
    language,
    source,
    page_url,
    image_url,
    candidate_id,
    licence,
    document,
    $part_path
from read_parquet($file, hive_partitioning = false)

-- name: insert_image_token_shards
-- purpose: Register one Parquet part of image tokens; the tokens stay in the part.
-- params: file (text), part_path (text), dvae_id (text)
-- returns: nothing
insert into image_token_shards (
    part_path, dvae_id, num_images, min_image_tokens, max_image_tokens, min_pair_id, max_pair_id, largest_image_token
)
select
    $part_path,
    $dvae_id,
    count(*),
    coalesce(min(len(image_tokens)), 0),
    coalesce(max(len(image_tokens)), 0),
    min(pair_id),
    max(pair_id),
    max(list_max(image_tokens))
from read_parquet($file, hive_partitioning = false)

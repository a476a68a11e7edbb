-- name: image_tokens
-- purpose: The image tokens of every registered part under a data root, by dVAE.
-- params: root (text)
-- reads: image_token_shards
-- returns: dvae_id, pair_id, crop, image_tokens
create or replace macro image_tokens(root) as table
select
    dvae as dvae_id,
    pair_id,
    crop,
    image_tokens
from read_parquet(
    files_under(root, '/image_tokens/dvae=*/*.parquet'), hive_partitioning = true, hive_types_autocast = false, filename = true
)
where part_of(filename, 'image_tokens') in (
    select part_path
    from image_token_shards
);

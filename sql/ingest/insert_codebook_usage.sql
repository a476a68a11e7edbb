-- name: insert_codebook_usage
-- purpose: Insert how often each image token of a dVAE occurs.
-- params: file (text), part_path (text), dvae_id (text)
-- returns: nothing
insert into codebook_usage (dvae_id, image_token, occurrences, part_path)
select
    $dvae_id,
    image_token,
    occurrences,
    $part_path
from read_parquet($file, hive_partitioning = false)

-- name: reconstructed
-- purpose: How well each picture came back from its image tokens, in every run of `dalle reconstruct` under a data root.
-- params: root (text)
-- reads: pairs
-- returns: dvae_id, picture, pair_id, caption, psnr, num_codes, image_tokens, file_path
create or replace macro reconstructed(root) as table
select
    made.dvae_id,
    made.picture,
    made.pair_id,
    pairs.caption,
    made.psnr,
    made.num_codes,
    made.image_tokens,
    made.filename as file_path
from read_parquet(files_under(root, '/runs/reconstruct-*/reconstructions.parquet'), hive_partitioning = false, filename = true) as made
left join pairs on made.pair_id = pairs.pair_id;

-- name: generation_tokens
-- purpose: The image tokens of every catalogued generation under a data root.
-- params: root (text)
-- reads: generations
-- returns: generation_id, image_tokens
create or replace macro generation_tokens(root) as table
select
    generation_id,
    image_tokens
from read_parquet(files_under(root, '/runs/*/generations.parquet'), hive_partitioning = false, filename = true)
where part_of(filename, 'runs') in (
    select part_path
    from generations
);

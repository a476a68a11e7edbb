-- name: generation_embeddings
-- purpose: What the generated pictures are to each CLIP that scored them, for every catalogued run under a data root.
-- params: root (text)
-- reads: artifacts
-- returns: generation_id, clip_id, image_embedding
create or replace macro generation_embeddings(root) as table
select
    generation_id,
    clip_id,
    image_embedding
from read_parquet(files_under(root, '/runs/*/image_embeddings.parquet'), hive_partitioning = false, filename = true)
where part_of(filename, 'runs') in (
    select path
    from artifacts
    where kind = 'image_embeddings'
);

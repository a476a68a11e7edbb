-- name: pair_embeddings
-- purpose: What the pictures of pairs are to each CLIP that scored them, for every catalogued part under a data root.
-- params: root (text)
-- reads: ingested_parts
-- returns: clip_id, pair_id, image_embedding
create or replace macro pair_embeddings(root) as table
select
    clip as clip_id,
    pair_id,
    image_embedding
from read_parquet(
    files_under(root, '/clip_scores/clip=*/*.parquet'), hive_partitioning = true, hive_types_autocast = false, filename = true
)
where part_of(filename, 'clip_scores') in (
    select part_path
    from ingested_parts
    where artifact_kind = 'clip_scores'
);

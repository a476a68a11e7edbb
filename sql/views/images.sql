-- name: images
-- purpose: The pictures of every catalogued pair under a data root, as they were downloaded.
-- params: root (text)
-- reads: ingested_parts
-- returns: pair_id, source, split, caption, width, height, image
create or replace macro images(root) as table
select
    pair_id,
    source,
    split,
    caption,
    width,
    height,
    image
from read_parquet(files_under(root, '/pairs/*/*.parquet'), hive_partitioning = false, filename = true, union_by_name = true)
where part_of(filename, 'pairs') in (
    select part_path
    from ingested_parts
    where artifact_kind = 'pairs'
);

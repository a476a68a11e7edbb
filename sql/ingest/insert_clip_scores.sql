-- name: insert_clip_scores
-- purpose: Insert the CLIP scores of one Parquet part.
-- params: file (text), part_path (text), clip_id (text)
-- returns: nothing
insert into clip_scores (pair_id, clip_id, clip_score, part_path)
select
    pair_id,
    $clip_id,
    clip_score,
    $part_path
from read_parquet($file, hive_partitioning = false)

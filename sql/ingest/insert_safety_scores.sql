-- name: insert_safety_scores
-- purpose: Insert the safety scores of one Parquet part.
-- params: file (text), part_path (text), safety_id (text)
-- returns: nothing
insert into safety_scores (pair_id, safety_id, nsfw_score, watermark_score, part_path)
select
    pair_id,
    $safety_id,
    nsfw_score,
    watermark_score,
    $part_path
from read_parquet($file, hive_partitioning = false)

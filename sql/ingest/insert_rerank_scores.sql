-- name: insert_rerank_scores
-- purpose: Insert the CLIP scores and ranks of the generated pictures of one run.
-- params: file (text), part_path (text), clip_id (text)
-- returns: nothing
insert into rerank_scores (generation_id, clip_id, clip_score, rank, part_path)
select
    generation_id,
    $clip_id,
    clip_score,
    rank,
    $part_path
from read_parquet($file, hive_partitioning = false)

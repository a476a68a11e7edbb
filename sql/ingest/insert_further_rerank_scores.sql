-- name: insert_further_rerank_scores
-- purpose: Insert the scores that a further CLIP gave to finished generations.
-- params: file (text), part_path (text)
-- returns: nothing
insert into rerank_scores (generation_id, clip_id, clip_score, rank, part_path)
select
    generation_id,
    clip_id,
    clip_score,
    rank,
    $part_path
from read_parquet($file, hive_partitioning = false)

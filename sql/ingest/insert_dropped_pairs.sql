-- name: insert_dropped_pairs
-- purpose: Insert the dropped candidates of one Parquet part.
-- params: file (text), part_path (text)
-- returns: nothing
insert into dropped_pairs (candidate_id, source, stage, reason, detail, caption, image_url, page_url, part_path)
select
    candidate_id,
    source,
    stage,
    reason,
    detail,
    caption,
    image_url,
    page_url,
    $part_path
from read_parquet($file, hive_partitioning = false)

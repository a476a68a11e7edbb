-- name: insert_evaluations
-- purpose: Insert the checker's verdicts of one run.
-- params: file (text), part_path (text), run_id (text)
-- returns: nothing
insert into evaluations (
    generation_id, run_id, prompt_set, object_right, color_right, background_right, layout_right, all_right, part_path
)
select
    generation_id,
    $run_id,
    prompt_set,
    object_right,
    color_right,
    background_right,
    layout_right,
    all_right,
    $part_path
from read_parquet($file, hive_partitioning = false)

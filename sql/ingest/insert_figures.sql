-- name: insert_figures
-- purpose: Insert the figures of one evaluation.
-- params: file (text), part_path (text), run_id (text), generations_run (text)
-- returns: nothing
insert into figures (
    run_id, generations_run, figure, pictures, prompt_set, best_of, blur_radius, value, low, high, num_samples, space, note, part_path
)
select
    $run_id,
    $generations_run,
    figure,
    pictures,
    prompt_set,
    best_of,
    blur_radius,
    value,
    low,
    high,
    num_samples,
    space,
    note,
    $part_path
from read_parquet($file, hive_partitioning = false)

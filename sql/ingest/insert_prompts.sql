-- name: insert_prompts
-- purpose: Insert the prompts of one Parquet file.
-- params: file (text), part_path (text)
-- returns: nothing
insert into prompts (prompt_id, prompt, prompt_set, expected, part_path)
select
    prompt_id,
    prompt,
    prompt_set,
    expected,
    $part_path
from read_parquet($file, hive_partitioning = false)

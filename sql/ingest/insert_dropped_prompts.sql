-- name: insert_dropped_prompts
-- purpose: Insert the prompts that one run could not use.
-- params: file (text), part_path (text), run_id (text)
-- returns: nothing
insert into dropped_prompts (run_id, prompt_id, prompt, prompt_set, reason, detail, part_path)
select
    $run_id,
    prompt_id,
    prompt,
    prompt_set,
    reason,
    detail,
    $part_path
from read_parquet($file, hive_partitioning = false)

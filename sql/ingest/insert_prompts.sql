-- name: insert_prompts
-- purpose: Insert the prompts of one Parquet file, with the query in its metadata.
-- params: file (text), part_path (text)
-- returns: nothing
insert into prompts (prompt_id, prompt, prompt_set, expected, query_sql, part_path)
select
    prompt_id,
    prompt,
    prompt_set,
    expected,
    (
        select nullif(decode(value), '')
        from parquet_kv_metadata($file)
        where decode(key) = 'query'
    ),
    $part_path
from read_parquet($file, hive_partitioning = false)

-- name: insert_text_tokens
-- purpose: Insert the text tokens of one Parquet part.
-- params: file (text), part_path (text), tokenizer_id (text)
-- returns: nothing
insert into text_tokens (pair_id, tokenizer_id, text_tokens, num_text_tokens, is_truncated, part_path)
select
    pair_id,
    $tokenizer_id,
    text_tokens,
    num_text_tokens,
    is_truncated,
    $part_path
from read_parquet($file, hive_partitioning = false)

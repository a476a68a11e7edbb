-- name: tokens_counted_once
-- purpose: A pair has one row of text tokens per tokenizer, and one score per CLIP.
-- reads: text_tokens, clip_scores
-- returns: table_name, pair_id, id, num_rows
select
    'text_tokens' as table_name,
    pair_id,
    tokenizer_id as id,
    count(*) as num_rows
from text_tokens
group by
    pair_id,
    tokenizer_id
having count(*) > 1
union all
select
    'clip_scores' as table_name,
    pair_id,
    clip_id as id,
    count(*) as num_rows
from clip_scores
group by
    pair_id,
    clip_id
having count(*) > 1
order by
    table_name,
    pair_id

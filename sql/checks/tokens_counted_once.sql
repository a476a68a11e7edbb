-- name: tokens_counted_once
-- purpose: A part has one row of text tokens for each of its pairs, and one score for each.
-- reads: text_tokens, clip_scores
-- returns: table_name, part_path, pair_id, id, num_rows
with rows as (
    select
        'text_tokens' as table_name,
        part_path,
        pair_id,
        tokenizer_id as id
    from text_tokens
    union all
    select
        'clip_scores',
        part_path,
        pair_id,
        clip_id
    from clip_scores
)

select
    table_name,
    part_path,
    pair_id,
    id,
    count(*) as num_rows
from rows
group by all
having count(*) > 1
order by
    table_name,
    part_path,
    pair_id

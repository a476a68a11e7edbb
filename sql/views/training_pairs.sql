-- name: training_pairs
-- purpose: Every pair with its text tokens and CLIP score: what a training set is chosen from.
-- reads: pairs, text_tokens, clip_scores
-- returns: pair_id, split, caption, source, page_url, tokenizer_id, text_tokens, is_truncated, clip_id, clip_score
-- A pair that two sources hold has a row for each in every table; the rows tell the same, so one of them counts.
create or replace view training_pairs as
with one_pair as (
    select arg_min(rowid, source) as chosen
    from pairs
    group by pair_id
),

one_text as (
    select min(rowid) as chosen
    from text_tokens
    group by
        pair_id,
        tokenizer_id
),

one_score as (
    select min(rowid) as chosen
    from clip_scores
    group by
        pair_id,
        clip_id
)

select
    pairs.pair_id,
    pairs.split,
    pairs.caption,
    pairs.source,
    pairs.page_url,
    text_tokens.tokenizer_id,
    text_tokens.text_tokens,
    text_tokens.is_truncated,
    clip_scores.clip_id,
    clip_scores.clip_score
from pairs
inner join text_tokens on pairs.pair_id = text_tokens.pair_id
inner join clip_scores on pairs.pair_id = clip_scores.pair_id
where
    pairs.rowid in (select chosen from one_pair)
    and text_tokens.rowid in (select chosen from one_text)
    and clip_scores.rowid in (select chosen from one_score);

comment on view training_pairs is 'Pairs with text tokens and CLIP score, one row per pair, tokenizer and CLIP.';

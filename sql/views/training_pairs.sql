-- name: training_pairs
-- purpose: Every pair with its text tokens and CLIP score: what a training set is chosen from.
-- reads: pairs, text_tokens, clip_scores
-- returns: pair_id, split, caption, source, page_url, tokenizer_id, text_tokens, is_truncated, clip_id, clip_score
create or replace view training_pairs as
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
inner join clip_scores on pairs.pair_id = clip_scores.pair_id;

comment on view training_pairs is 'Pairs with text tokens and CLIP score, one row per pair, tokenizer and CLIP.';

-- name: vocabulary_coverage
-- purpose: How much of each BPE vocabulary the captions use, and how many tokens a word takes.
-- reads: text_tokens, pairs, artifacts, runs
-- returns: tokenizer_id, vocab_size, num_used, share_used, num_used_once, num_tokens, tokens_per_word
with uses as (
    select
        tokenizer_id,
        unnest(text_tokens) as token
    from text_tokens
),

tokens as (
    select
        tokenizer_id,
        token,
        count(*) as occurrences
    from uses
    group by
        tokenizer_id,
        token
),

used as (
    select
        tokenizer_id,
        count(*) as num_used,
        count(*) filter (where occurrences = 1) as num_used_once,
        sum(occurrences)::bigint as num_tokens
    from tokens
    group by tokenizer_id
),

words as (
    select
        text_tokens.tokenizer_id,
        sum(pairs.num_caption_words)::bigint as num_words
    from text_tokens
    inner join pairs on text_tokens.pair_id = pairs.pair_id
    where not text_tokens.is_truncated
    group by text_tokens.tokenizer_id
),

whole as (
    select
        tokenizer_id,
        sum(num_text_tokens)::bigint as num_tokens
    from text_tokens
    where not is_truncated
    group by tokenizer_id
),

sizes as (
    select
        artifacts.artifact_id as tokenizer_id,
        any_value(coalesce(runs.result ->> 'vocab_size', runs.config -> 'tokenizer' ->> 'vocab_size'))::bigint as vocab_size
    from artifacts
    inner join runs on artifacts.made_by = runs.run_id
    where artifacts.kind = 'tokenizer'
    group by artifacts.artifact_id
)

select
    used.tokenizer_id,
    sizes.vocab_size,
    used.num_used,
    used.num_used / sizes.vocab_size as share_used,
    used.num_used_once,
    used.num_tokens,
    whole.num_tokens / nullif(words.num_words, 0) as tokens_per_word
from used
left join sizes on used.tokenizer_id = sizes.tokenizer_id
left join words on used.tokenizer_id = words.tokenizer_id
left join whole on used.tokenizer_id = whole.tokenizer_id
order by used.tokenizer_id

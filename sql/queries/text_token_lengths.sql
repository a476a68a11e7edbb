-- name: text_token_lengths
-- purpose: How many BPE tokens captions take, and how many were cut.
-- params: tokenizer_id (text, optional)
-- reads: text_tokens, latest_artifacts
-- returns: num_text_tokens, num_pairs, num_truncated; shortest first
select
    num_text_tokens,
    count(*) as num_pairs,
    count(*) filter (where is_truncated) as num_truncated
from text_tokens
where tokenizer_id = coalesce($tokenizer_id, (select artifact_id from latest_artifacts where kind = 'tokenizer'))
group by num_text_tokens
order by num_text_tokens

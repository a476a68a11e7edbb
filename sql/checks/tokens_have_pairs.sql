-- name: tokens_have_pairs
-- purpose: Text tokens, scores and safety scores belong to pairs that exist.
-- finds: leftovers
-- reads: text_tokens, clip_scores, safety_scores, pairs
-- returns: table_name, pair_id
select
    'text_tokens' as table_name,
    text_tokens.pair_id
from text_tokens
anti join pairs on text_tokens.pair_id = pairs.pair_id
union all
select
    'clip_scores' as table_name,
    clip_scores.pair_id
from clip_scores
anti join pairs on clip_scores.pair_id = pairs.pair_id
union all
select
    'safety_scores' as table_name,
    safety_scores.pair_id
from safety_scores
anti join pairs on safety_scores.pair_id = pairs.pair_id
order by
    table_name,
    pair_id

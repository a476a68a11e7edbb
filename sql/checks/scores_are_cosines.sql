-- name: scores_are_cosines
-- purpose: CLIP scores are numbers in [-1, 1].
-- reads: clip_scores, rerank_scores
-- returns: table_name, id, clip_score
select
    'clip_scores' as table_name,
    pair_id::varchar as id,
    clip_score
from clip_scores
where
    isnan(clip_score)
    or abs(clip_score) > 1.0001
union all
select
    'rerank_scores' as table_name,
    generation_id as id,
    clip_score
from rerank_scores
where
    isnan(clip_score)
    or abs(clip_score) > 1.0001
order by
    table_name,
    id

-- name: pairs_like_embedding
-- purpose: Pairs whose pictures are to CLIP most like an embedding: that of a text, or of another picture.
-- params: root (text), clip_id (text), embedding (text), limit (integer = 24)
-- reads: pair_embeddings, pairs
-- returns: pair_id, clip_similarity, caption, split, source, page_url, image_url, part_path; most alike first
-- The embedding is written as [0.1, -0.2, ...].
with closest as (
    select
        pair_id,
        max(list_cosine_similarity(image_embedding::float[], $embedding::float[])) as clip_similarity
    from pair_embeddings($root)
    where clip_id = $clip_id
    group by pair_id
    order by
        clip_similarity desc,
        pair_id
    limit $limit
)

select
    closest.pair_id,
    closest.clip_similarity,
    pairs.caption,
    pairs.split,
    pairs.source,
    pairs.page_url,
    pairs.image_url,
    pairs.part_path
from closest
inner join pairs on closest.pair_id = pairs.pair_id
qualify row_number() over (partition by closest.pair_id order by pairs.source) = 1
order by
    closest.clip_similarity desc,
    closest.pair_id

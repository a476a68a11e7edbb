-- name: near_duplicates
-- purpose: Pairs whose pictures look alike to CLIP, among the first of a sample: every picture is compared with every other.
-- params: root (text), clip_id (text, optional), min_similarity (number = 0.95), sample (integer = 3000), limit (integer = 50)
-- reads: pair_embeddings, pairs, latest_artifacts
-- returns: similarity, first_pair_id, second_pair_id, first_caption, second_caption, same_pixels; most alike first
with vectors as (
    select
        pair_id,
        any_value(image_embedding)::float[] as seen
    from pair_embeddings($root)
    where clip_id = coalesce($clip_id, (select artifact_id from latest_artifacts where kind = 'clip'))
    group by pair_id
    order by md5(pair_id::varchar)
    limit $sample
),

known as (
    select
        pair_id,
        any_value(caption order by source) as caption,
        any_value(pixel_sha256 order by source) as pixel_sha256
    from pairs
    group by pair_id
),

alike as (
    select
        one.pair_id as first_pair_id,
        other.pair_id as second_pair_id,
        list_cosine_similarity(one.seen, other.seen) as similarity
    from vectors as one
    inner join vectors as other on one.pair_id < other.pair_id
    where list_cosine_similarity(one.seen, other.seen) >= $min_similarity::double
)

select
    alike.similarity,
    alike.first_pair_id,
    alike.second_pair_id,
    one.caption as first_caption,
    other.caption as second_caption,
    one.pixel_sha256 = other.pixel_sha256 as same_pixels
from alike
inner join known as one on alike.first_pair_id = one.pair_id
inner join known as other on alike.second_pair_id = other.pair_id
order by
    alike.similarity desc,
    alike.first_pair_id,
    alike.second_pair_id
limit $limit

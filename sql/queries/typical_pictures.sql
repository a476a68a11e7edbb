-- name: typical_pictures
-- purpose: The pictures most and least like the mean of all, by what CLIP sees: what the collection is about, and what strayed in.
-- params: root (text), clip_id (text, optional), limit (integer = 10)
-- reads: pair_embeddings, pairs, latest_artifacts
-- returns: kind, similarity, pair_id, caption, image_url; most typical first, then least typical
with vectors as (
    select distinct on (pair_id)
        pair_id,
        image_embedding::float[] as seen
    from pair_embeddings($root)
    where clip_id = coalesce($clip_id, (select artifact_id from latest_artifacts where kind = 'clip'))
),

places as (
    select
        generate_subscripts(seen, 1) as place,
        unnest(seen) as value
    from vectors
),

means as (
    select
        place,
        avg(value)::float as value
    from places
    group by place
),

middle as (
    select list(value order by place) as seen
    from means
),

placed as (
    select
        vectors.pair_id,
        list_cosine_similarity(vectors.seen, middle.seen) as similarity
    from vectors
    cross join middle
),

ranked as (
    select
        pair_id,
        similarity,
        row_number() over (order by similarity desc, pair_id) as from_top,
        row_number() over (order by similarity, pair_id) as from_bottom
    from placed
)

select
    if(ranked.from_top <= $limit, 'typical', 'untypical') as kind,
    ranked.similarity,
    ranked.pair_id,
    any_value(pairs.caption order by pairs.source) as caption,
    any_value(pairs.image_url order by pairs.source) as image_url
from ranked
inner join pairs on ranked.pair_id = pairs.pair_id
where
    ranked.from_top <= $limit
    or ranked.from_bottom <= $limit
group by
    ranked.from_top,
    ranked.similarity,
    ranked.pair_id
order by
    kind,
    if(kind = 'typical', -ranked.similarity, ranked.similarity),
    ranked.pair_id

-- name: nearest_training_pairs
-- purpose: Is a picture a copy? The pairs most like it, by image tokens that agree in place and by what CLIP sees.
-- params: root (text), generation_id (text), limit (integer = 10), copy_share (number = 0.95), copy_similarity (number = 0.99)
-- reads: generation_tokens, image_tokens, generation_embeddings, pair_embeddings, generations, runs, pairs
-- returns: pair_id, tokens_equal, share_equal, hamming_distance, clip_similarity, place_by_tokens, place_by_clip, looks_copied, split, caption, image_url; the most alike by either measure first
-- A copy shares nearly all tokens; one that was shifted or recoloured shares few, and CLIP finds it. The CLIP is the one that ranked the picture.
with picture as (
    select
        unnest(image_tokens) as token,
        generate_subscripts(image_tokens, 1) as place
    from generation_tokens($root)
    where generation_id = $generation_id
),

networks as (
    select
        any_value(runs.inputs ->> 'dvae_id') as dvae_id,
        any_value(runs.inputs ->> 'clip_id') as clip_id
    from generations
    inner join runs on generations.run_id = runs.run_id
    where generations.generation_id = $generation_id
),

pictures as (
    select
        pair_id,
        crop,
        unnest(image_tokens) as token,
        generate_subscripts(image_tokens, 1) as place
    from image_tokens($root)
    where dvae_id = (select dvae_id from networks)
),

agreeing as (
    select
        pictures.pair_id,
        pictures.crop,
        count(*) as tokens_equal
    from pictures
    inner join picture on pictures.place = picture.place and pictures.token = picture.token
    group by
        pictures.pair_id,
        pictures.crop
),

closest_crop as (
    select
        pair_id,
        max(tokens_equal) as tokens_equal
    from agreeing
    group by pair_id
),

seen as (
    select image_embedding
    from generation_embeddings($root)
    where generation_id = $generation_id and clip_id = (select clip_id from networks)
),

clip_similarities as (
    select
        pair_id,
        max(list_cosine_similarity(stored.image_embedding, seen.image_embedding)) as clip_similarity
    from pair_embeddings($root) as stored
    cross join seen
    where clip_id = (select clip_id from networks)
    group by pair_id
),

compared as (
    select
        pairs.pair_id,
        coalesce(closest_crop.tokens_equal, 0) as tokens_equal,
        (select count(*) from picture) as num_tokens,
        clip_similarities.clip_similarity,
        pairs.split,
        pairs.caption,
        pairs.image_url
    from pairs
    left join closest_crop on pairs.pair_id = closest_crop.pair_id
    left join clip_similarities on pairs.pair_id = clip_similarities.pair_id
    where closest_crop.pair_id is not null or clip_similarities.pair_id is not null
),

placed as (
    select
        compared.*,
        row_number() over (
            order by
                tokens_equal desc,
                pair_id
        ) as place_by_tokens,
        row_number() over (
            order by
                clip_similarity desc nulls last,
                pair_id
        ) as place_by_clip
    from compared
)

select
    pair_id,
    tokens_equal,
    tokens_equal / num_tokens as share_equal,
    num_tokens - tokens_equal as hamming_distance,
    clip_similarity,
    place_by_tokens,
    place_by_clip,
    tokens_equal >= $copy_share * num_tokens or coalesce(clip_similarity >= $copy_similarity, false) as looks_copied,
    split,
    caption,
    image_url
from placed
where place_by_tokens <= $limit or place_by_clip <= $limit
order by
    least(place_by_tokens, place_by_clip),
    place_by_tokens,
    pair_id
limit $limit

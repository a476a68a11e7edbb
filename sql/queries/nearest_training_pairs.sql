-- name: nearest_training_pairs
-- purpose: Is a picture a copy? The pairs whose image tokens agree with its tokens in most places of the grid.
-- params: root (text), generation_id (text), limit (integer = 10)
-- reads: generation_tokens, image_tokens, generations, runs, pairs
-- returns: pair_id, tokens_equal, share_equal, hamming_distance, split, caption, image_url; most alike first
with picture as (
    select
        unnest(image_tokens) as token,
        generate_subscripts(image_tokens, 1) as place
    from generation_tokens($root)
    where generation_id = $generation_id
),

codebook as (
    select any_value(runs.inputs ->> 'dvae_id') as dvae_id
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
    where dvae_id = (select dvae_id from codebook)
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
)

select
    closest_crop.pair_id,
    closest_crop.tokens_equal,
    closest_crop.tokens_equal / (select count(*) from picture) as share_equal,
    (select count(*) from picture) - closest_crop.tokens_equal as hamming_distance,
    pairs.split,
    pairs.caption,
    pairs.image_url
from closest_crop
inner join pairs on closest_crop.pair_id = pairs.pair_id
order by
    closest_crop.tokens_equal desc,
    closest_crop.pair_id
limit $limit

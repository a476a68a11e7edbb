-- name: pairs_like_tokens
-- purpose: Pairs whose image tokens agree in place with those of a picture at most positions.
-- params: root (text), dvae_id (text), image_tokens (text), limit (integer = 24)
-- reads: image_tokens, pairs
-- returns: pair_id, tokens_equal, share_equal, caption, split, source, page_url, image_url, part_path; most alike first
-- The tokens are written as [17, 3, ...], row by row.
with picture as (
    select
        unnest($image_tokens::integer[]) as token,
        generate_subscripts($image_tokens::integer[], 1) as place
),

pictures as (
    select
        pair_id,
        crop,
        unnest(image_tokens) as token,
        generate_subscripts(image_tokens, 1) as place
    from image_tokens($root)
    where dvae_id = $dvae_id
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

closest as (
    select
        pair_id,
        max(tokens_equal) as tokens_equal
    from agreeing
    group by pair_id
    order by
        tokens_equal desc,
        pair_id
    limit $limit
)

select
    closest.pair_id,
    closest.tokens_equal,
    closest.tokens_equal / (select count(*) from picture) as share_equal,
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
    closest.tokens_equal desc,
    closest.pair_id

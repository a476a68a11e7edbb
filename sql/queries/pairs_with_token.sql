-- name: pairs_with_token
-- purpose: Pairs whose pictures use an image token, and where.
-- params: root (text), dvae_id (text), image_token (integer), limit (integer = 24)
-- reads: image_tokens, pairs
-- returns: pair_id, occurrences, places, caption, split, source, page_url, image_url, part_path; most occurrences first
-- Places count from 0, row by row, in the crop that has the token most often.
with pictures as (
    select
        pair_id,
        crop,
        unnest(image_tokens) as token,
        generate_subscripts(image_tokens, 1) - 1 as place
    from image_tokens($root)
    where dvae_id = $dvae_id and list_contains(image_tokens, $image_token)
),

crops as (
    select
        pair_id,
        crop,
        count(*) as occurrences,
        list(place order by place) as places
    from pictures
    where token = $image_token
    group by
        pair_id,
        crop
),

closest as (
    select *
    from crops
    qualify row_number() over (partition by pair_id order by occurrences desc, crop) = 1
    order by
        occurrences desc,
        pair_id
    limit $limit
)

select
    closest.pair_id,
    closest.occurrences,
    closest.places,
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
    closest.occurrences desc,
    closest.pair_id

-- name: codebook_usage_adds_up
-- purpose: The counted image tokens are as many as the registered parts hold.
-- finds: leftovers
-- reads: codebook_usage, image_token_shards
-- returns: dvae_id, num_counted, num_held
with counted as (
    select
        dvae_id,
        sum(occurrences) as num_counted
    from codebook_usage
    group by dvae_id
),

held as (
    select
        dvae_id,
        sum(num_images * max_image_tokens) as num_held
    from image_token_shards
    group by dvae_id
)

select
    counted.dvae_id,
    counted.num_counted,
    held.num_held
from counted
inner join held on counted.dvae_id = held.dvae_id
where counted.num_counted <> held.num_held
order by counted.dvae_id

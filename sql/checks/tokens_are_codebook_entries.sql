-- name: tokens_are_codebook_entries
-- purpose: Every image token is an entry of its dVAE's codebook.
-- reads: image_token_shards, codebook_usage
-- returns: part_path, dvae_id, largest_image_token, num_codes
with codebooks as (
    select
        dvae_id,
        max(image_token) + 1 as num_codes
    from codebook_usage
    group by dvae_id
)

select
    image_token_shards.part_path,
    image_token_shards.dvae_id,
    image_token_shards.largest_image_token,
    codebooks.num_codes
from image_token_shards
inner join codebooks on image_token_shards.dvae_id = codebooks.dvae_id
where image_token_shards.largest_image_token >= codebooks.num_codes
order by image_token_shards.part_path

-- name: image_tokens_have_one_length
-- purpose: All images of a dVAE have the same number of tokens.
-- reads: image_token_shards
-- returns: dvae_id, min_image_tokens, max_image_tokens
select
    dvae_id,
    min(min_image_tokens) as min_image_tokens,
    max(max_image_tokens) as max_image_tokens
from image_token_shards
where num_images > 0
group by dvae_id
having min(min_image_tokens) <> max(max_image_tokens)
order by dvae_id

-- name: reconstructions
-- purpose: How well each picture came back from its image tokens when `dalle reconstruct` was asked.
-- params: root (text), dvae_id (text, optional), limit (integer = 50)
-- reads: reconstructed
-- returns: dvae_id, picture, caption, psnr, num_codes; worst first
select distinct
    dvae_id,
    picture,
    caption,
    psnr,
    num_codes
from reconstructed($root)
where dvae_id = coalesce($dvae_id, dvae_id)
order by
    psnr,
    dvae_id,
    picture
limit $limit

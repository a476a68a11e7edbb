-- name: places_of_pairs
-- purpose: Where every pair was found, and which picture it is, to be compared with the block list.
-- reads: pairs
-- returns: image_url, page_url, sha256, pixel_sha256
select
    image_url,
    page_url,
    sha256,
    pixel_sha256
from pairs

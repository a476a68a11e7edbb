-- name: duplicates
-- purpose: Pictures that were kept more than once, pixel for pixel, with their captions.
-- params: limit (integer = 50)
-- reads: pairs
-- returns: pixel_sha256, num_pairs, captions, image_urls; most frequent first
select
    pixel_sha256,
    count(*) as num_pairs,
    list_sort(list(caption)) as captions,
    list_sort(list(distinct image_url)) as image_urls
from pairs
group by pixel_sha256
having count(*) > 1
order by
    num_pairs desc,
    pixel_sha256
limit $limit

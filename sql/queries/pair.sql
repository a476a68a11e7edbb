-- name: pair
-- purpose: One pair: its caption, split, source, page and the part that holds its picture.
-- params: pair_id (integer)
-- reads: pairs
-- returns: pair_id, caption, split, source, page_url, image_url, width, height, language, part_path; a row for each source that has it
select
    pair_id,
    caption,
    split,
    source,
    page_url,
    image_url,
    width,
    height,
    language,
    part_path
from pairs
where pair_id = $pair_id
order by
    source,
    part_path

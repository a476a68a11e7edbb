-- name: ids_are_hashes
-- purpose: A pair_id is a hash, so none is 0 or less: such a row was read from a damaged file.
-- reads: pairs, text_tokens, clip_scores, safety_scores, image_token_shards
-- returns: table_name, part_path, num_rows
select
    'pairs' as table_name,
    part_path,
    count(*) as num_rows
from pairs
where pair_id <= 0
group by part_path
union all
select
    'text_tokens',
    part_path,
    count(*)
from text_tokens
where pair_id <= 0
group by part_path
union all
select
    'clip_scores',
    part_path,
    count(*)
from clip_scores
where pair_id <= 0
group by part_path
union all
select
    'safety_scores',
    part_path,
    count(*)
from safety_scores
where pair_id <= 0
group by part_path
union all
select
    'image_token_shards',
    part_path,
    num_images
from image_token_shards
where min_pair_id <= 0
order by
    table_name,
    part_path

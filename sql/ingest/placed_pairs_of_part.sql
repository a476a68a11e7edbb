-- name: placed_pairs_of_part
-- purpose: The pairs that an export takes from one part, with their scores.
-- params: part_path (text)
-- reads: placed_pairs
-- returns: pair_id, clip_id, clip_score; by pair
select
    pair_id,
    clip_id,
    clip_score
from placed_pairs
where part_path = $part_path
order by pair_id

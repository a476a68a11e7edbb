-- name: placed_pairs
-- purpose: One place for each pair chosen for an export: the part that its picture is read from.
-- reads: chosen_pairs, pairs
-- returns: part_path, pair_id, licence, clip_id, clip_score
select
    arg_min(pairs.part_path, (pairs.source, pairs.part_path)) as part_path,
    pairs.pair_id,
    arg_min(coalesce(pairs.licence, ''), (pairs.source, pairs.part_path)) as licence,
    min(chosen_pairs.clip_id) as clip_id,
    max(chosen_pairs.clip_score) as clip_score
from chosen_pairs
inner join pairs on chosen_pairs.pair_id = pairs.pair_id and chosen_pairs.source = pairs.source
group by pairs.pair_id

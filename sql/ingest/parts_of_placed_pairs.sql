-- name: parts_of_placed_pairs
-- purpose: The parts that an export reads, their content, and how many pairs it takes from each.
-- reads: placed_pairs, ingested_parts
-- returns: part_path, sha256, num_pairs; by path
select
    placed_pairs.part_path,
    ingested_parts.sha256,
    count(*) as num_pairs
from placed_pairs
inner join ingested_parts on placed_pairs.part_path = ingested_parts.part_path
group by
    placed_pairs.part_path,
    ingested_parts.sha256
order by placed_pairs.part_path

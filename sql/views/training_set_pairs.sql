-- name: training_set_pairs
-- purpose: Which pairs every exported training set under a data root holds.
-- params: root (text)
-- reads: training_sets
-- returns: training_set_id, pair_id, split
create or replace macro training_set_pairs(root) as table
select distinct
    split_part(part_of(filename, 'training_sets'), '/', 2) as training_set_id,
    pair_id,
    split
from read_parquet(files_under(root, '/training_sets/*/*.parquet'), hive_partitioning = false, filename = true)
where split_part(part_of(filename, 'training_sets'), '/', 2) in (select training_set_id from training_sets);

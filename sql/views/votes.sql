-- name: votes
-- purpose: People's votes on pairs of pictures, one row for each voter, pair and question, under a data root.
-- params: root (text)
-- returns: ballot_id, pair_number, prompt, first, second, question, voter, is_for_first
create or replace macro votes(root) as table
select
    made.ballot_id,
    made.pair_number,
    made.prompt,
    made.first,
    made.second,
    made.question,
    made.voter,
    made.is_for_first
from read_parquet(files_under(root, '/votes/*/votes-*.parquet'), hive_partitioning = false) as made;

-- name: newest_training_set
-- purpose: The training set that was catalogued last, so that queries work without its id.
-- reads: ingested_parts, training_sets
-- returns: training_set_id
create or replace view newest_training_set as
select training_sets.training_set_id
from training_sets
inner join ingested_parts on training_sets.part_path = ingested_parts.part_path
order by
    ingested_parts.ingested_at desc,
    training_sets.training_set_id
limit 1;

comment on view newest_training_set is 'The training set that was catalogued last: one row, or none.';
comment on column newest_training_set.training_set_id is 'Its id.';

-- name: training_sets
-- purpose: The training sets that were exported, and what chose them.
-- reads: training_sets
-- returns: training_set_id, query, parameters, num_pairs, num_validation, sources, path; by id
select
    training_set_id,
    query,
    parameters,
    num_pairs,
    num_validation,
    sources,
    path
from training_sets
order by training_set_id

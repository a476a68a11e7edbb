-- name: training_set_counts
-- purpose: What is in the rows chosen for a training set.
-- reads: chosen_pairs
-- returns: num_rows, num_pairs, num_validation, num_sources, num_pages, sources
select
    count(*) as num_rows,
    count(distinct pair_id) as num_pairs,
    count(distinct pair_id) filter (where split = 'validation') as num_validation,
    count(distinct source) as num_sources,
    count(distinct page_url) as num_pages,
    coalesce(list_sort(list(distinct source)), []) as sources
from chosen_pairs

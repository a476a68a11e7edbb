-- name: run_ids
-- purpose: Every run of the catalog, to compare them with the run directories.
-- reads: runs
-- returns: run_id
select run_id
from runs
order by run_id

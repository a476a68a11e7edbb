-- name: run_content
-- purpose: Which content of a run's files the catalog holds, to skip a run it has.
-- params: run_id (text)
-- reads: runs
-- returns: files_sha256
select files_sha256
from runs
where run_id = $run_id

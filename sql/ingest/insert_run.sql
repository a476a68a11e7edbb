-- name: insert_run
-- purpose: Insert one finished run from its run directory.
-- params: run_id (text), job (text), config (text), inputs (text), result (text), files_sha256 (text), git_commit (text), provenance (text), timings (text), started_at (timestamp), duration_s (number)
-- returns: nothing
insert into runs (run_id, job, config, inputs, result, files_sha256, git_commit, provenance, timings, started_at, duration_s)
values ($run_id, $job, $config, $inputs, $result, $files_sha256, $git_commit, $provenance, $timings, $started_at, $duration_s)

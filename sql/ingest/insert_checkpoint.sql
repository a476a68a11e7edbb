-- name: insert_checkpoint
-- purpose: Insert one folder of weights or of a training state.
-- params: run_id (text), path (text), kind (text), step (integer), num_bytes (integer)
-- returns: nothing
insert into checkpoints (run_id, path, kind, step, num_bytes)
values ($run_id, $path, $kind, $step, $num_bytes)

-- name: insert_artifact
-- purpose: Insert one thing that a run or an export made.
-- params: artifact_id (text), kind (text), path (text), made_by (text)
-- returns: nothing
insert into artifacts (artifact_id, kind, path, made_by)
values ($artifact_id, $kind, $path, $made_by)

-- name: latest_artifacts
-- purpose: The newest thing of each kind, so that queries work without ids.
-- reads: artifacts, runs
-- returns: kind, artifact_id, run_id
create or replace view latest_artifacts as
select
    artifacts.kind,
    artifacts.artifact_id,
    runs.run_id
from artifacts
inner join runs on artifacts.made_by = runs.run_id
qualify row_number() over (partition by artifacts.kind order by runs.started_at desc, runs.run_id) = 1;

comment on view latest_artifacts is 'The artefact of each kind whose run was started last.';

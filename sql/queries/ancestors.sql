-- name: ancestors
-- purpose: Everything that a run, network or training set was made from.
-- params: id (text)
-- reads: ancestors, artifacts
-- returns: depth, role, id, kind, path; nearest first
select
    walked.depth,
    walked.role,
    walked.ancestor_id as id,
    artifacts.kind,
    artifacts.path
from ancestors($id) as walked
left join artifacts on walked.ancestor_id = artifacts.artifact_id
order by
    walked.depth,
    walked.role,
    id

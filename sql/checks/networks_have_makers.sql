-- name: networks_have_makers
-- purpose: Networks and tokenizers that a run used were made by a run in the catalog.
-- finds: leftovers
-- reads: lineage, artifacts
-- returns: child_id, role, parent_id
select
    lineage.child_id,
    lineage.role,
    lineage.parent_id
from lineage
anti join artifacts on lineage.parent_id = artifacts.artifact_id
where lineage.role in ('tokenizer', 'dvae', 'clip', 'transformer', 'training_set', 'start', 'evaluator')
order by
    lineage.child_id,
    lineage.role

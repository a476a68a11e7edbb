-- name: seen_by
-- purpose: Which training sets hold a pair, and which transformers were trained on it.
-- params: root (text), pair_id (integer)
-- reads: training_set_pairs, runs, artifacts
-- returns: training_set_id, split, run_id, transformer_id, checkpoint; by training set
select
    members.training_set_id,
    members.split,
    runs.run_id,
    artifacts.artifact_id as transformer_id,
    artifacts.path as checkpoint
from training_set_pairs($root) as members
left join runs on runs.job = 'train_transformer' and (runs.inputs ->> 'training_set_id') = members.training_set_id
left join artifacts on runs.run_id = artifacts.made_by and artifacts.kind = 'transformer'
where members.pair_id = $pair_id
order by
    members.training_set_id,
    runs.run_id

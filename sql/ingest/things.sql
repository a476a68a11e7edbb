-- name: things
-- purpose: Runs, training sets, and folders of tokens and scores, with what each is of no use without, to find what may be deleted.
-- reads: runs, lineage, training_sets, artifacts
-- returns: id, path, uses
select
    runs.run_id as id,
    'runs/' || runs.run_id as path,
    coalesce(list(lineage.parent_id) filter (where lineage.parent_id is not null), []) as uses
from runs
left join lineage
    on
        runs.run_id = lineage.child_id
        and lineage.role in ('tokenizer', 'dvae', 'clip', 'transformer', 'safety', 'evaluator')
        and not starts_with(runs.job, 'train_')
group by
    runs.run_id,
    runs.job
having starts_with(runs.job, 'train_') or len(uses) > 0
union all
select
    training_set_id,
    path,
    []
from training_sets
union all
select
    artifact_id,
    path,
    []
from artifacts
where kind = 'tokenizer'
union all
select distinct
    split_part(path, '=', 2),
    path,
    []
from artifacts
where
    kind in ('text_tokens', 'image_tokens', 'clip_scores', 'safety')
    and contains(path, '=')
order by
    id,
    path

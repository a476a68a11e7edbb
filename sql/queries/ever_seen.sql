-- name: ever_seen
-- purpose: Everything that a network ever learned from, through all warm starts and the networks it was trained with, here and elsewhere.
-- params: network_id (text, optional)
-- reads: ancestors, runs, artifacts, training_sets, network_history, latest_artifacts
-- returns: depth, role, network_id, run_id, data_id, num_pairs, sources, told_by; nearest first, told_by names the import of a model folder
with walked as (
    select *
    from ancestors(coalesce($network_id, (select artifact_id from latest_artifacts where kind = 'transformer')))
),

reached as (
    select
        walked.depth,
        runs.*,
        made.artifact_id,
        made.kind
    from walked
    inner join runs on walked.ancestor_id = runs.run_id
    inner join artifacts as made on runs.run_id = made.made_by
    inner join walked as needed on made.artifact_id = needed.ancestor_id
),

learned as (
    select
        reached.depth,
        reached.kind as role,
        reached.artifact_id as network_id,
        reached.run_id,
        coalesce(reached.inputs ->> 'training_set_id', reached.inputs ->> 'pairs_id') as data_id,
        coalesce(
            training_sets.num_pairs,
            (select any_value(history.num_pairs) from network_history as history where history.run_id = reached.run_id)
        ) as num_pairs,
        coalesce(training_sets.sources, [split_part(reached.inputs ->> 'pairs', '/', 2)]) as sources,
        cast(null as varchar) as told_by
    from reached
    left join training_sets on training_sets.training_set_id = (reached.inputs ->> 'training_set_id')
    where reached.job in ('train_bpe', 'train_dvae', 'train_clip', 'train_transformer')
),

-- what a model folder says of its networks, of those alone that are needed
told as (
    select
        reached.depth,
        reached.kind,
        reached.run_id,
        unnest(json_extract(reached.result, '$.seen[*]')) as record
    from reached
    where reached.job = 'import_model'
)

select * from learned
union
select
    min(depth) as depth,
    record ->> 'role' as role,
    record ->> 'network_id' as network_id,
    record ->> 'run_id' as run_id,
    record ->> 'data_id' as data_id,
    cast(record ->> 'num_pairs' as bigint) as num_pairs,
    cast(record -> 'sources' as varchar []) as sources,
    run_id as told_by
from told
where list_contains(cast(record -> 'of' as varchar []), kind)
group by
    record,
    run_id
order by
    depth,
    role,
    network_id,
    run_id

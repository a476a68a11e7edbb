-- name: compare_runs
-- purpose: Two runs side by side: every setting, input and result in which they differ.
-- params: first_run_id (text), second_run_id (text)
-- reads: runs
-- returns: part, name, first, second
with said as (
    select
        run_id,
        unnest([
            {part: 'inputs', value: inputs},
            {part: 'settings', value: config},
            {part: 'result', value: result},
            {part: 'timings', value: timings}
        ]) as row
    from runs
    where run_id in ($first_run_id, $second_run_id)
),

leaves as (
    select
        said.run_id,
        said.row.part as part,
        ltrim(tree.fullkey, '$.') as name,
        tree.atom ->> '$' as value
    from said, json_tree(said.row.value) as tree
    where tree.atom is not null
),

compared as (
    select
        coalesce(one.part, other.part) as part,
        coalesce(one.name, other.name) as name,
        one.value as first,
        other.value as second
    from (select * from leaves where run_id = $first_run_id) as one
    full join (select * from leaves where run_id = $second_run_id) as other
        on one.part = other.part and one.name = other.name
)

select
    part,
    name,
    first,
    second
from compared
where first is distinct from second
order by
    array_position(['inputs', 'settings', 'result', 'timings'], part),
    name

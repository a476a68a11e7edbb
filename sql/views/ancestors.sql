-- name: ancestors
-- purpose: Everything that a run, training set or artefact was made from, directly or not.
-- params: id (text)
-- reads: artifacts, lineage
-- returns: id, role, depth
create or replace macro ancestors(id) as table
with recursive walk(ancestor_id, role, depth) as (
    select id, 'itself', 0
    union
    select
        edges.parent_id,
        edges.role,
        walk.depth + 1
    from walk
    inner join (
        select child_id, parent_id, role from lineage
        union all
        select artifact_id as child_id, made_by as parent_id, 'made by' as role from artifacts where artifact_id <> made_by
    ) as edges on walk.ancestor_id = edges.child_id
    where walk.depth < 20
)

select
    ancestor_id,
    any_value(role order by depth) as role,
    min(depth) as depth
from walk
group by ancestor_id;

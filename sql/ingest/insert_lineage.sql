-- name: insert_lineage
-- purpose: Insert one edge from a run or training set to something it was made from.
-- params: child_id (text), parent_id (text), role (text)
-- returns: nothing
insert into lineage (child_id, parent_id, role)
values ($child_id, $parent_id, $role)

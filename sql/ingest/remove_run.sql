-- name: remove_run
-- purpose: Remove the rows of one run from a table.
-- params: run_id (text)
-- identifiers: table, column
-- returns: nothing
delete from {table}
where {column} = $run_id

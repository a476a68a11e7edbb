-- name: remove_part
-- purpose: Remove the rows of one file from a table.
-- params: part_path (text)
-- identifiers: table
-- returns: nothing
delete from {table}
where part_path = $part_path

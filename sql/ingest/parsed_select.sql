-- name: parsed_select
-- purpose: What DuckDB's parser makes of a select, as JSON, to see what it calls before it runs.
-- params: sql (text)
-- returns: one row with the tree, or with "error": true for anything but selects
select json_serialize_sql($sql::varchar) as tree

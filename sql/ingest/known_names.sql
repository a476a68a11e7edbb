-- name: known_names
-- purpose: Tables, views and macros of this catalog, to tell a copy that other code published.
-- returns: name; in order
select table_name as name
from duckdb_tables()
union
select view_name
from duckdb_views()
union
select function_name
from duckdb_functions()
where not internal
order by name

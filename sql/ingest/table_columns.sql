-- name: table_columns
-- purpose: Columns of every table, to compare two catalogs.
-- returns: table_name, column_name; in order
select
    table_name,
    column_name
from duckdb_columns()
where
    not internal
    and database_name = current_database()
    and table_name in (select table_name from duckdb_tables() where database_name = current_database())
order by
    table_name,
    column_index

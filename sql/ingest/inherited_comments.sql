-- name: inherited_comments
-- purpose: Comments for the columns of a view that have none, from the columns of the same name that it reads.
-- params: view_name (text), reads (text)
-- returns: column_name, comment
with known as (
    select
        column_name,
        comment,
        list_position(string_split($reads, ','), table_name) as place
    from duckdb_columns()
    where
        not internal
        and database_name = current_database()
        and comment is not null
        and list_contains(string_split($reads, ','), table_name)
)

select
    bare.column_name,
    any_value(known.comment order by known.place) as comment
from duckdb_columns() as bare
inner join known on bare.column_name = known.column_name
where
    bare.table_name = $view_name
    and bare.database_name = current_database()
    and bare.comment is null
group by bare.column_name
order by bare.column_name

-- name: table_macros
-- purpose: The table macros of this catalog, which a select may call.
-- returns: function_name
select function_name
from duckdb_functions()
where
    function_type = 'table_macro'
    and not internal

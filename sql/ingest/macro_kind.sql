-- name: macro_kind
-- purpose: What `comment on` calls a macro of this catalog; no row when there is none of the name.
-- params: name (text)
-- returns: kind
select distinct if(function_type = 'table_macro', 'macro table', 'macro') as kind
from duckdb_functions()
where
    function_name = $name
    and not internal

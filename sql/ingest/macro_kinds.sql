-- name: macro_kinds
-- purpose: What `comment on` calls each macro of this catalog.
-- returns: function_name, kind
select distinct
    function_name,
    if(function_type = 'table_macro', 'macro table', 'macro') as kind
from duckdb_functions()
where
    function_type in ('macro', 'table_macro')
    and not internal

-- name: licences
-- purpose: How many pairs there are under each licence, to choose what may be trained on.
-- params: source (text, optional)
-- reads: pairs
-- returns: licence, num_pairs, share; most first, null where nothing is known
select
    licence,
    count(*) as num_pairs,
    count(*) / sum(count(*)) over () as share
from pairs
where source = coalesce($source, source)
group by licence
order by
    num_pairs desc,
    licence

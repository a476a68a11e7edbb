-- name: licences_of_placed_pairs
-- purpose: Under which licences the pairs of an export were published, for the page that goes with it.
-- reads: placed_pairs
-- returns: licence, num_pairs; most frequent first, twenty at most
select
    licence,
    count(*) as num_pairs
from placed_pairs
group by licence
order by
    num_pairs desc,
    licence
limit 20

-- name: pairs_counted_once
-- purpose: Every pair_id is in one row of pairs.
-- reads: pairs
-- returns: pair_id, num_rows
select
    pair_id,
    count(*) as num_rows
from pairs
group by pair_id
having count(*) > 1
order by pair_id

-- name: pairs_counted_once
-- purpose: Every pair_id is in one row of each source that has it.
-- reads: pairs
-- returns: pair_id, source, num_rows
select
    pair_id,
    source,
    count(*) as num_rows
from pairs
group by
    pair_id,
    source
having count(*) > 1
order by
    pair_id,
    source

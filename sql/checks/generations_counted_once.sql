-- name: generations_counted_once
-- purpose: A generation_id stands for one picture.
-- reads: generations
-- returns: generation_id, num_rows
select
    generation_id,
    count(*) as num_rows
from generations
group by generation_id
having count(*) > 1
order by generation_id

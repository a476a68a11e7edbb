-- name: judged_generations
-- purpose: Every generated picture with the score and rank of the CLIP that chose among them, and the checker's verdict where there is one.
-- reads: scored_generations
-- returns: the columns of scored_generations but is_own
create or replace view judged_generations as
select * exclude (is_own)
from scored_generations
where is_own;

comment on view judged_generations is 'Pictures with CLIP score, rank, and the checker''s verdict (null where it has not looked).';

-- name: best_generations
-- purpose: The picture of each prompt that CLIP ranks first.
-- reads: judged_generations
-- returns: the columns of judged_generations
create or replace view best_generations as
select *
from judged_generations
where rank = 1;

comment on view best_generations is 'One picture per run and prompt: the best of its candidates by CLIP.';

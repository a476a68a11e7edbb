-- name: prompt_sets
-- purpose: How many prompts of each set a run made pictures for, and how many pictures.
-- params: run_id (text)
-- reads: generations
-- returns: prompt_set, num_prompts, num_pictures; largest first
select
    prompt_set,
    count(distinct prompt_id) as num_prompts,
    count(*) as num_pictures
from generations
where run_id = $run_id
group by prompt_set
order by
    num_prompts desc,
    prompt_set

-- name: evaluations_have_generations
-- purpose: Every verdict is about a picture that is catalogued.
-- finds: leftovers
-- reads: evaluations, generations
-- returns: generation_id
select evaluations.generation_id
from evaluations
anti join generations on evaluations.generation_id = generations.generation_id
order by evaluations.generation_id

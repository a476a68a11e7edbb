-- name: generations_have_origins
-- purpose: Every picture has its prompt, its run and its score.
-- finds: leftovers
-- reads: generations, prompts, runs, rerank_scores
-- returns: generation_id, missing
select
    generations.generation_id,
    'prompt' as missing
from generations
anti join prompts on generations.prompt_id = prompts.prompt_id
union all
select
    generations.generation_id,
    'run' as missing
from generations
anti join runs on generations.run_id = runs.run_id
union all
select
    generations.generation_id,
    'score' as missing
from generations
anti join rerank_scores on generations.generation_id = rerank_scores.generation_id
order by
    generation_id,
    missing

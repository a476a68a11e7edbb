-- name: scored_generations
-- purpose: Every generated picture with the score and rank that each CLIP gave it, and the checker's verdict where there is one.
-- reads: generations, rerank_scores, evaluations, runs
-- returns: generation_id, run_id, prompt, prompt_set, candidate_index, image_path, clip_id, is_own, clip_score, rank, the five verdicts
create or replace view scored_generations as
with newest_verdicts as (
    select evaluations.*
    from evaluations
    left join runs on evaluations.run_id = runs.run_id
    qualify row_number() over (partition by evaluations.generation_id order by runs.started_at desc, evaluations.run_id) = 1
)

select
    generations.generation_id,
    generations.run_id,
    generations.prompt_id,
    generations.prompt,
    generations.prompt_set,
    generations.candidate_index,
    generations.seed,
    generations.image_path,
    rerank_scores.clip_id,
    rerank_scores.part_path = generations.part_path as is_own,
    rerank_scores.clip_score,
    rerank_scores.rank,
    newest_verdicts.object_right,
    newest_verdicts.color_right,
    newest_verdicts.background_right,
    newest_verdicts.layout_right,
    newest_verdicts.all_right
from generations
inner join rerank_scores on generations.generation_id = rerank_scores.generation_id
left join newest_verdicts on generations.generation_id = newest_verdicts.generation_id
qualify row_number() over (partition by generations.generation_id, rerank_scores.clip_id order by is_own desc) = 1;

comment on view scored_generations is 'Pictures with scores, one row per picture and CLIP; is_own marks the CLIP that ranked them when they were made.';
comment on column scored_generations.is_own is 'Whether this CLIP ranked the pictures when they were made.';

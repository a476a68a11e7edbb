-- name: judged_generations
-- purpose: Every generated picture with its CLIP score and rank, and the checker's verdict where there is one.
-- reads: generations, rerank_scores, evaluations
-- returns: generation_id, run_id, prompt, prompt_set, candidate_index, image_path, clip_id, clip_score, rank, the five verdicts
create or replace view judged_generations as
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
    rerank_scores.clip_score,
    rerank_scores.rank,
    evaluations.object_right,
    evaluations.color_right,
    evaluations.background_right,
    evaluations.layout_right,
    evaluations.all_right
from generations
inner join rerank_scores on generations.generation_id = rerank_scores.generation_id
left join evaluations on generations.generation_id = evaluations.generation_id;

comment on view judged_generations is 'Pictures with CLIP score, rank, and the checker''s verdict (null where it has not looked).';

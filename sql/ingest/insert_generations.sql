-- name: insert_generations
-- purpose: Insert the generated pictures of one run.
-- params: file (text), part_path (text), run_id (text)
-- returns: nothing
insert into generations (generation_id, run_id, prompt_id, prompt, prompt_set, candidate_index, seed, image_path, part_path)
select
    generation_id,
    $run_id,
    prompt_id,
    prompt,
    prompt_set,
    candidate_index,
    seed,
    image_path,
    $part_path
from read_parquet($file, hive_partitioning = false)

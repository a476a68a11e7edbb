-- name: lineage
-- purpose: Where a picture came from: prompt, seed, settings, networks, training set with its SQL, pairs, sources and pages.
-- params: generation_id (text)
-- reads: judged_generations, runs, artifacts, training_sets
-- returns: position, fact, value, made_by; from the picture back to the pages
with picture as (
    select
        judged_generations.*,
        runs.inputs,
        runs.config,
        runs.git_commit
    from judged_generations
    inner join runs on judged_generations.run_id = runs.run_id
    where judged_generations.generation_id = $generation_id
),

networks as (
    select
        picture.inputs ->> 'transformer_id' as transformer_id,
        picture.inputs ->> 'dvae_id' as dvae_id,
        picture.inputs ->> 'tokenizer_id' as tokenizer_id,
        picture.clip_id,
        makers.artifact_id,
        makers.kind,
        makers.path,
        makers.made_by,
        trained.inputs as trained_from,
        trained.config as trained_with
    from picture
    inner join artifacts as makers
        on
            makers.artifact_id in (
                picture.inputs ->> 'transformer_id',
                picture.inputs ->> 'dvae_id',
                picture.inputs ->> 'tokenizer_id',
                picture.clip_id
            )
    left join runs as trained on makers.made_by = trained.run_id
    -- two runs may have made the same thing, to the byte; one of them is enough
    qualify row_number() over (partition by makers.kind, makers.artifact_id order by trained.started_at desc, makers.made_by) = 1
),

chosen_set as (
    select training_sets.*
    from training_sets
    inner join networks
        on
            networks.kind = 'transformer'
            and training_sets.training_set_id = (networks.trained_from ->> 'training_set_id')
),

facts as (
    select 0 as position, 'picture' as fact, image_path as value, run_id as made_by from picture
    union all
    select 1, 'prompt', prompt, null from picture
    union all
    select 2, 'prompt set', prompt_set, null from picture
    union all
    select 3, 'candidate', candidate_index::varchar, null from picture
    union all
    select 4, 'seed', seed::varchar, null from picture
    union all
    select 5, 'sampler settings', (config -> 'sampling')::varchar, null from picture
    union all
    select 6, 'CLIP score', round(clip_score, 4)::varchar, null from picture
    union all
    select 7, 'rank by CLIP', rank::varchar, null from picture
    union all
    select 8, 'code of the sampler', git_commit, null from picture
    union all
    select 9, 'transformer', artifact_id, made_by from networks where kind = 'transformer'
    union all
    select 10, 'transformer checkpoint', path, null from networks where kind = 'transformer'
    union all
    select 11, 'transformer training', (trained_with -> 'train_transformer')::varchar, null from networks where kind = 'transformer'
    union all
    select 12, 'dVAE', artifact_id, made_by from networks where kind = 'dvae'
    union all
    select 13, 'CLIP', artifact_id, made_by from networks where kind = 'clip'
    union all
    select 14, 'tokenizer', artifact_id, made_by from networks where kind = 'tokenizer'
    union all
    select 15, 'training set', training_set_id, path from chosen_set
    union all
    select 16, 'training set query', query_sql, null from chosen_set
    union all
    select 17, 'training set parameters', parameters::varchar, null from chosen_set
    union all
    select 18, 'pairs in the training set', num_pairs::varchar, null from chosen_set
    union all
    select 19, 'pairs for validation', num_validation::varchar, null from chosen_set
    union all
    select 20, 'sources', array_to_string(sources, ', '), null from chosen_set
    union all
    select 21, 'pages', num_pages::varchar, null from chosen_set
)

select distinct
    position,
    fact,
    value,
    made_by
from facts
order by position

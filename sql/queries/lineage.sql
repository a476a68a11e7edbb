-- name: lineage
-- purpose: Where a picture came from: prompt, seed, settings, networks, training set with its SQL, pairs, sources and pages.
-- params: generation_id (text)
-- reads: judged_generations, runs, artifacts, training_sets, prompts
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

-- two runs may have made the same thing, to the byte; one of them is enough
networks as (
    select
        artifacts.*,
        runs.inputs,
        runs.config
    from artifacts
    left join runs on artifacts.made_by = runs.run_id
    qualify row_number() over (partition by artifacts.kind, artifacts.artifact_id order by runs.started_at desc, artifacts.made_by) = 1
),

listed as (
    select
        [
            {fact: 'picture', value: picture.image_path, made_by: picture.run_id},
            {fact: 'prompt', value: picture.prompt, made_by: null},
            {fact: 'prompt set', value: picture.prompt_set, made_by: null},
            {
                fact: 'prompts query',
                value: (select any_value(prompts.query_sql) from prompts where prompts.part_path = (picture.inputs ->> 'prompts')),
                made_by: null
            },
            {fact: 'candidate', value: picture.candidate_index::varchar, made_by: null},
            {fact: 'seed', value: picture.seed::varchar, made_by: null},
            {fact: 'sampler settings', value: (picture.config -> 'sampling')::varchar, made_by: null},
            {fact: 'CLIP score', value: round(picture.clip_score, 4)::varchar, made_by: null},
            {fact: 'rank by CLIP', value: picture.rank::varchar, made_by: null},
            {fact: 'code of the sampler', value: picture.git_commit, made_by: null},
            {fact: 'transformer', value: transformer.artifact_id, made_by: transformer.made_by},
            {fact: 'transformer checkpoint', value: transformer.path, made_by: null},
            {fact: 'transformer training', value: (transformer.config -> 'train_transformer')::varchar, made_by: null},
            {fact: 'dVAE', value: dvae.artifact_id, made_by: dvae.made_by},
            {fact: 'CLIP', value: clip.artifact_id, made_by: clip.made_by},
            {fact: 'tokenizer', value: tokenizer.artifact_id, made_by: tokenizer.made_by},
            {fact: 'training set', value: training_sets.training_set_id, made_by: training_sets.path},
            {fact: 'training set query', value: training_sets.query_sql, made_by: null},
            {fact: 'training set parameters', value: training_sets.parameters::varchar, made_by: null},
            {fact: 'pairs in the training set', value: training_sets.num_pairs::varchar, made_by: null},
            {fact: 'pairs for validation', value: training_sets.num_validation::varchar, made_by: null},
            {fact: 'sources', value: array_to_string(training_sets.sources, ', '), made_by: null},
            {fact: 'pages', value: training_sets.num_pages::varchar, made_by: null}
        ] as facts
    from picture
    left join networks as transformer
        on transformer.kind = 'transformer' and transformer.artifact_id = (picture.inputs ->> 'transformer_id')
    left join networks as dvae on dvae.kind = 'dvae' and dvae.artifact_id = (picture.inputs ->> 'dvae_id')
    left join networks as clip on clip.kind = 'clip' and clip.artifact_id = picture.clip_id
    left join networks as tokenizer on tokenizer.kind = 'tokenizer' and tokenizer.artifact_id = (picture.inputs ->> 'tokenizer_id')
    left join training_sets on training_sets.training_set_id = (transformer.inputs ->> 'training_set_id')
),

facts as (
    select
        generate_subscripts(facts, 1) - 1 as position,
        unnest(facts) as row
    from listed
)

select
    position,
    row.fact,
    row.value,
    row.made_by
from facts
order by position

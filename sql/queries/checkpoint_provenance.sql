-- name: checkpoint_provenance
-- purpose: Where a transformer came from: its run, code and settings, the networks before it, and the pairs and sources it saw.
-- params: transformer_id (text, optional)
-- reads: artifacts, runs, training_sets, latest_artifacts, run_metrics
-- returns: position, fact, value
with chosen as (
    select
        artifacts.artifact_id,
        artifacts.path,
        runs.*
    from artifacts
    inner join runs on artifacts.made_by = runs.run_id
    where
        artifacts.kind = 'transformer'
        and artifacts.artifact_id
        = coalesce($transformer_id, (select artifact_id from latest_artifacts where kind = 'transformer'))
    qualify row_number() over (order by runs.started_at desc, runs.run_id) = 1
),

trained as (
    select
        count(distinct step) as num_logged,
        max(step) as last_step
    from run_metrics
    where run_id = (select run_id from chosen)
),

listed as (
    select
        [
            {fact: 'transformer', value: chosen.artifact_id},
            {fact: 'checkpoint', value: chosen.path},
            {fact: 'run', value: chosen.run_id},
            {fact: 'started', value: chosen.started_at::varchar},
            {fact: 'code', value: chosen.git_commit},
            {fact: 'last logged step', value: trained.last_step::varchar},
            {fact: 'parameters', value: chosen.result ->> 'num_parameters'},
            {fact: 'training', value: (chosen.config -> 'train_transformer')::varchar},
            {fact: 'network', value: (chosen.config -> 'transformer')::varchar},
            {fact: 'tokenizer', value: chosen.inputs ->> 'tokenizer_id'},
            {fact: 'dVAE', value: chosen.inputs ->> 'dvae_id'},
            {fact: 'CLIP that chose the pairs', value: training_sets.clip_id},
            {fact: 'training set', value: training_sets.training_set_id},
            {fact: 'recipe', value: training_sets.query},
            {fact: 'recipe parameters', value: training_sets.parameters::varchar},
            {fact: 'pairs', value: training_sets.num_pairs::varchar},
            {fact: 'pairs for validation', value: training_sets.num_validation::varchar},
            {fact: 'pages', value: training_sets.num_pages::varchar},
            {fact: 'sources', value: array_to_string(training_sets.sources, ', ')}
        ] as facts
    from chosen
    cross join trained
    left join training_sets on training_sets.training_set_id = (chosen.inputs ->> 'training_set_id')
),

rows as (
    select
        generate_subscripts(facts, 1) - 1 as position,
        unnest(facts) as row
    from listed
)

select
    position,
    row.fact,
    row.value
from rows
order by position

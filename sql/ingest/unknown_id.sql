-- name: unknown_id
-- purpose: Whether the catalog has nothing with an id that a query was given, and the ids most like it.
-- params: parameter (text), id (text)
-- reads: artifacts, generations, pairs, runs, stage_times, training_sets
-- returns: is_unknown, near
with ids as (
    select
        'generation_id' as parameter,
        generation_id as id
    from generations
    where $parameter = 'generation_id'
    union all
    select 'pair_id', pair_id::varchar from pairs where $parameter = 'pair_id'
    union all
    select 'pipeline_run_id', pipeline_run_id from stage_times
    union all
    select 'run_id', run_id from runs
    union all
    select 'training_set_id', training_set_id from training_sets
    union all
    select kind || '_id', artifact_id from artifacts
    union all
    select 'network_id', artifact_id from artifacts where kind in ('tokenizer', 'dvae', 'clip', 'transformer')
),

known as (
    select distinct id
    from ids
    where parameter = $parameter
)

select
    not coalesce(bool_or(id = $id), false) as is_unknown,
    coalesce(min_by(id, levenshtein(id, $id), 3), []) as near
from known

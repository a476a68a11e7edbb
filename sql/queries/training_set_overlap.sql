-- name: training_set_overlap
-- purpose: Two training sets side by side: how they were chosen, and which pairs they share.
-- params: root (text), first_training_set_id (text), second_training_set_id (text)
-- reads: training_sets, training_set_pairs
-- returns: position, fact, first, second
with one as (
    select distinct pair_id
    from training_set_pairs($root)
    where training_set_id = $first_training_set_id
),

other as (
    select distinct pair_id
    from training_set_pairs($root)
    where training_set_id = $second_training_set_id
),

shared as (
    select count(*) as num_shared
    from one
    semi join other on one.pair_id = other.pair_id
),

facts as (
    select
        training_set_id,
        [
            {fact: 'recipe', value: query},
            {fact: 'tokenizer', value: tokenizer_id},
            {fact: 'dVAE', value: dvae_id},
            {fact: 'CLIP', value: clip_id},
            {fact: 'parameters', value: parameters::varchar},
            {fact: 'sources', value: array_to_string(sources, ', ')},
            {fact: 'rows', value: num_rows::varchar},
            {fact: 'pairs', value: num_pairs::varchar},
            {fact: 'pairs for validation', value: num_validation::varchar},
            {fact: 'pairs of both', value: (select num_shared from shared)::varchar},
            {fact: 'pairs of this one only', value: (num_pairs - (select num_shared from shared))::varchar}
        ] as facts
    from training_sets
),

listed as (
    select
        training_set_id,
        generate_subscripts(facts, 1) - 1 as position,
        unnest(facts) as row
    from facts
)

select
    one.position,
    one.row.fact,
    one.row.value as first,
    other.row.value as second
from (select * from listed where training_set_id = $first_training_set_id) as one
inner join (select * from listed where training_set_id = $second_training_set_id) as other on one.position = other.position
order by one.position

-- name: ledger_matches_tables
-- purpose: Every file of the ledger has as many rows in its table as it holds.
-- reads: ingested_parts, pairs, dropped_pairs, text_tokens, codebook_usage, clip_scores, safety_scores, prompts, dropped_prompts, generations, rerank_scores, evaluations, figures
-- returns: part_path, table_name, num_expected, num_rows
with rows_held as (
    select 'pairs' as table_name, part_path from pairs
    union all
    select 'dropped_pairs', part_path from dropped_pairs
    union all
    select 'text_tokens', part_path from text_tokens
    union all
    select 'codebook_usage', part_path from codebook_usage
    union all
    select 'clip_scores', part_path from clip_scores
    union all
    select 'safety_scores', part_path from safety_scores
    union all
    select 'prompts', part_path from prompts
    union all
    select 'dropped_prompts', part_path from dropped_prompts
    union all
    select 'generations', part_path from generations
    union all
    select 'rerank_scores', part_path from rerank_scores
    union all
    select 'evaluations', part_path from evaluations
    union all
    select 'figures', part_path from figures
),

held as (
    select
        table_name,
        part_path,
        count(*) as num_rows
    from rows_held
    group by
        table_name,
        part_path
),

expected as (
    select
        artifact_kind as table_name,
        part_path,
        num_rows
    from ingested_parts
    where artifact_kind not in ('collected', 'image_tokens', 'training_set')  -- of these the rows stay in the files
    union all
    select
        'rerank_scores',
        part_path,
        num_rows
    from ingested_parts
    where artifact_kind = 'generations'  -- a generation comes with the score of the CLIP that ranked it
)

select
    coalesce(expected.part_path, held.part_path) as part_path,
    coalesce(expected.table_name, held.table_name) as table_name,
    coalesce(expected.num_rows, 0) as num_expected,
    coalesce(held.num_rows, 0) as num_rows
from expected
full join held on expected.part_path = held.part_path and expected.table_name = held.table_name
where coalesce(expected.num_rows, 0) <> coalesce(held.num_rows, 0)
order by
    part_path,
    table_name

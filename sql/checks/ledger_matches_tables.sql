-- name: ledger_matches_tables
-- purpose: Every file of the ledger has as many rows in its table as it holds.
-- reads: ingested_parts, pairs, dropped_pairs, text_tokens, codebook_usage, clip_scores, prompts, generations, rerank_scores, evaluations
-- returns: part_path, table_name, num_expected, num_rows
with held as (
    select 'pairs' as table_name, part_path, count(*) as num_rows from pairs group by part_path
    union all
    select 'dropped_pairs', part_path, count(*) from dropped_pairs group by part_path
    union all
    select 'text_tokens', part_path, count(*) from text_tokens group by part_path
    union all
    select 'codebook_usage', part_path, count(*) from codebook_usage group by part_path
    union all
    select 'clip_scores', part_path, count(*) from clip_scores group by part_path
    union all
    select 'prompts', part_path, count(*) from prompts group by part_path
    union all
    select 'generations', part_path, count(*) from generations group by part_path
    union all
    select 'rerank_scores', part_path, count(*) from rerank_scores group by part_path
    union all
    select 'evaluations', part_path, count(*) from evaluations group by part_path
),

filled_from(table_name, artifact_kind) as (
    values
    ('pairs', 'pairs'),
    ('dropped_pairs', 'dropped_pairs'),
    ('text_tokens', 'text_tokens'),
    ('codebook_usage', 'codebook_usage'),
    ('clip_scores', 'clip_scores'),
    ('prompts', 'prompts'),
    ('generations', 'generations'),
    ('rerank_scores', 'generations'),
    ('rerank_scores', 'rerank_scores'),
    ('evaluations', 'evaluations')
),

expected as (
    select
        filled_from.table_name,
        ingested_parts.part_path,
        ingested_parts.num_rows
    from ingested_parts
    inner join filled_from on ingested_parts.artifact_kind = filled_from.artifact_kind
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

-- name: insert_training_set
-- purpose: Insert one exported training set from its manifest.
-- params: file (text), part_path (text)
-- returns: nothing
insert into training_sets (
    training_set_id, query, query_sql, parameters, tokenizer_id, dvae_id, clip_id,
    num_rows, num_pairs, num_validation, num_sources, num_pages, sources, path, part_path
)
select
    training_set_id,
    query,
    query_sql,
    parameters,
    tokenizer_id,
    dvae_id,
    clip_id,
    num_rows,
    num_pairs,
    num_validation,
    num_sources,
    num_pages,
    sources,
    path,
    $part_path
from read_json($file, columns = {
    training_set_id: 'varchar', query: 'varchar', query_sql: 'varchar', parameters: 'json',
    tokenizer_id: 'varchar', dvae_id: 'varchar', clip_id: 'varchar',
    num_rows: 'bigint', num_pairs: 'bigint', num_validation: 'bigint',
    num_sources: 'bigint', num_pages: 'bigint', sources: 'varchar[]', path: 'varchar'
})

-- name: insert_network_history
-- purpose: Insert the history of one role's networks.
-- params: file (text), role (text)
-- returns: nothing
insert into network_history (
    role, position, registered_at, settings_id, network_id, run_id, path, became_current, why, pairs_id, num_pairs, metrics
)
select
    $role,
    row_number() over () - 1,
    "at"::timestamptz at time zone 'UTC',
    settings_id,
    network_id,
    run_id,
    path,
    is_current,
    why,
    pairs_id,
    num_pairs,
    metrics
from read_json($file, format = 'newline_delimited', columns = {
    "at": 'varchar', settings_id: 'varchar', network_id: 'varchar', run_id: 'varchar', path: 'varchar', is_current: 'boolean',
    why: 'varchar', pairs_id: 'varchar', num_pairs: 'bigint', metrics: 'varchar'
})

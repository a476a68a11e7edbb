-- name: networks
-- purpose: Which network serves in each role and which did before, with the reason for every switch.
-- params: role (text, optional)
-- reads: network_history
-- returns: role, settings_id, network_id, is_current, registered_at, why, num_pairs, metrics, run_id; newest first
select
    role,
    settings_id,
    network_id,
    position is not distinct from max(position) filter (where became_current) over (partition by role, settings_id) as is_current,
    registered_at,
    why,
    num_pairs,
    metrics,
    run_id
from network_history
where $role is null or role = $role
order by
    role,
    position desc

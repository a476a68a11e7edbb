-- name: funnel
-- purpose: How many candidates are left after each stage, from what the pages show to usable pairs.
-- params: source (text, optional), host (text, optional)
-- reads: outcomes
-- returns: position, stage, num_dropped, num_left, share_left; in order
with stages(position, stage) as (
    values
    (0, 'found'),
    (1, 'discover'),
    (2, 'download'),
    (3, 'decode'),
    (4, 'filter')
),

chosen as (
    select stage
    from outcomes
    where
        source = coalesce($source, source)
        and host = coalesce($host, host)
),

counted as (
    select
        stages.position,
        stages.stage,
        count(chosen.stage) as num_dropped
    from stages
    left join chosen on stages.stage = chosen.stage
    group by
        stages.position,
        stages.stage
),

total as (
    select count(*) as num_found
    from chosen
)

select
    counted.position,
    counted.stage,
    counted.num_dropped,
    (total.num_found - sum(counted.num_dropped) over (order by counted.position))::bigint as num_left,
    (total.num_found - sum(counted.num_dropped) over (order by counted.position)) / nullif(total.num_found, 0) as share_left
from counted
cross join total
order by counted.position

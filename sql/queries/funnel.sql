-- name: funnel
-- purpose: How many candidates are left after each stage, from what the pages show to usable pairs.
-- params: source (text, optional)
-- reads: pairs, dropped_pairs
-- returns: position, stage, num_dropped, num_left; in order
with stages(position, stage) as (
    values
    (0, 'found'),
    (1, 'discover'),
    (2, 'download'),
    (3, 'filter')
),

drops as (
    select
        stage,
        count(*) as num_dropped
    from dropped_pairs
    where
        source = coalesce($source, source)
        and stage in (select stage from stages)  -- later stages drop pairs, which are counted as pairs already
    group by stage
),

kept as (
    select count(*) as num_pairs
    from pairs
    where source = coalesce($source, source)
),

counted as (
    select
        stages.position,
        stages.stage,
        coalesce(drops.num_dropped, 0) as num_dropped
    from stages
    left join drops on stages.stage = drops.stage
)

select
    counted.position,
    counted.stage,
    counted.num_dropped,
    (kept.num_pairs + sum(counted.num_dropped) over () - sum(counted.num_dropped) over (order by counted.position))::bigint as num_left
from counted
cross join kept
order by counted.position

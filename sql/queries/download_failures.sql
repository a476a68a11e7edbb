-- name: download_failures
-- purpose: Which hosts fail to deliver images, and how.
-- params: limit (integer = 50)
-- reads: outcomes
-- returns: host, reason, num_failed, share_of_host, example_url; most failures first
with hosts as (
    select
        host,
        count(*) as num_candidates
    from outcomes
    group by host
)

select
    outcomes.host,
    outcomes.reason,
    count(*) as num_failed,
    count(*) / any_value(hosts.num_candidates) as share_of_host,
    min(outcomes.image_url) as example_url
from outcomes
inner join hosts on outcomes.host = hosts.host
where outcomes.stage = 'download'
group by
    outcomes.host,
    outcomes.reason
order by
    num_failed desc,
    outcomes.host,
    outcomes.reason
limit $limit

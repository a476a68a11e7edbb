-- name: download_failures
-- purpose: Which hosts fail to deliver images, and how.
-- params: limit (integer = 50)
-- reads: dropped_pairs
-- returns: host, reason, num_failed, example_url; most failures first
select
    regexp_extract(image_url, '^[a-z]+://([^/]+)', 1) as host,
    reason,
    count(*) as num_failed,
    min(image_url) as example_url
from dropped_pairs
where stage = 'download'
group by
    host,
    reason
order by
    num_failed desc,
    host,
    reason
limit $limit

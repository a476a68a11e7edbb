-- name: drop_examples
-- purpose: A few candidates of each reason for leaving them out.
-- params: per_reason (integer = 3), source (text, optional)
-- reads: outcomes
-- returns: stage, reason, detail, caption, image_url, source, candidate_id; by stage and reason
select
    stage,
    reason,
    detail,
    caption,
    image_url,
    source,
    candidate_id
from outcomes
where
    stage <> 'kept'
    and source = coalesce($source, source)
qualify row_number() over (partition by stage, reason order by candidate_id, image_url) <= $per_reason
order by
    stage,
    reason,
    candidate_id

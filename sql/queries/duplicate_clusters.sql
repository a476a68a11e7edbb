-- name: duplicate_clusters
-- purpose: Pictures that were found more than once, exactly or nearly, with everybody in the cluster and what became of them.
-- params: root (text), source (text, optional), limit (integer = 20), members (integer = 12)
-- reads: measured
-- returns: cluster, num_members, num_kept, candidate_id, source, outcome, caption, image_url; largest clusters first, what was kept first in each
with pictures as (
    select
        *,
        -- the filter names the picture that a near duplicate looks like
        if(reason = 'near_duplicate', nullif(regexp_extract(detail, '([0-9a-f]{16})$', 1), ''), null) as looks_like
    from measured($root)
    where
        source = coalesce($source, source)
        and pixel_sha256 is not null
),

clustered as (
    select
        left(coalesce(kept.pixel_sha256, pictures.pixel_sha256), 16) as cluster,
        pictures.*
    from pictures
    left join pictures as kept on pictures.looks_like = kept.candidate_id
),

placed as (
    select
        *,
        count(*) over (partition by cluster) as num_members,
        count(*) filter (where stage = 'kept') over (partition by cluster) as num_kept,
        row_number() over (partition by cluster order by stage <> 'kept', candidate_id) as place
    from clustered
    qualify num_members > 1
)

select
    cluster,
    num_members,
    num_kept,
    candidate_id,
    source,
    if(stage = 'kept', stage, reason) as outcome,
    caption,
    image_url
from placed
where place <= $members
qualify dense_rank() over (order by num_members desc, cluster) <= $limit
order by
    num_members desc,
    cluster,
    place

-- name: outcomes
-- purpose: What became of every candidate that was found, kept or not, in the newest state of each source.
-- reads: pairs, dropped_pairs
-- returns: candidate_id, source, host, stage, reason, detail, caption, image_url, page_url
create or replace view outcomes as
select
    candidate_id,
    source,
    host_of(image_url, page_url) as host,
    'kept' as stage,
    '' as reason,
    '' as detail,
    caption,
    image_url,
    page_url
from pairs
union all
select
    candidate_id,
    source,
    host_of(image_url, page_url) as host,
    funnel_stage(stage, reason) as stage,
    reason,
    detail,
    caption,
    image_url,
    page_url
from dropped_pairs
where stage <> 'tokenize';  -- later stages drop pairs, which are counted as pairs already

comment on view outcomes is 'Every candidate that was found, with the stage of the funnel that dropped it (kept, discover, download, decode or filter).';
comment on column outcomes.host is 'Host of the image, or of its page; (local files) where there is none.';

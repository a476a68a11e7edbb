-- name: dead_codes
-- purpose: Entries of a codebook that no image uses.
-- params: dvae_id (text, optional)
-- reads: codebook_usage, latest_artifacts, artifacts, runs
-- returns: image_token; in order
with chosen as (
    select coalesce($dvae_id, (select artifact_id from latest_artifacts where kind = 'dvae')) as dvae_id
),

entries as (
    select unnest(range(max((runs.config -> 'dvae' ->> 'codebook_size')::bigint)))::integer as image_token
    from artifacts
    inner join runs on artifacts.made_by = runs.run_id
    where artifacts.artifact_id = (select dvae_id from chosen)
),

used as (
    select image_token
    from codebook_usage
    where
        dvae_id = (select dvae_id from chosen)
        and occurrences > 0
)

select entries.image_token
from entries
anti join used on entries.image_token = used.image_token
order by entries.image_token

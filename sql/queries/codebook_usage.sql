-- name: codebook_usage
-- purpose: How often each image token appears, to spot dead codes.
-- params: dvae_id (text, optional)
-- reads: codebook_usage, latest_artifacts
-- returns: image_token, occurrences, share; least used first
select
    image_token,
    sum(occurrences)::bigint as occurrences,
    sum(occurrences) / nullif(sum(sum(occurrences)) over (), 0) as share
from codebook_usage
where dvae_id = coalesce($dvae_id, (select artifact_id from latest_artifacts where kind = 'dvae'))
group by image_token
order by
    occurrences,
    image_token

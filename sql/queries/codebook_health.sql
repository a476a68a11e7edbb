-- name: codebook_health
-- purpose: How much of each dVAE's codebook is in use.
-- reads: codebook_usage, artifacts, runs
-- returns: dvae_id, codebook_size, codes_used, codes_dead, perplexity, top_code_share; by dVAE
with counts as (
    select
        dvae_id,
        image_token,
        sum(occurrences) as occurrences
    from codebook_usage
    where occurrences > 0
    group by
        dvae_id,
        image_token
),

shares as (
    select
        dvae_id,
        image_token,
        occurrences / sum(occurrences) over (partition by dvae_id) as share
    from counts
),

sizes as (
    select
        artifacts.artifact_id as dvae_id,
        max((runs.config -> 'dvae' ->> 'codebook_size')::integer) as codebook_size
    from artifacts
    inner join runs on artifacts.made_by = runs.run_id
    where artifacts.kind = 'dvae'
    group by artifacts.artifact_id
)

select
    shares.dvae_id,
    any_value(sizes.codebook_size) as codebook_size,
    count(*) as codes_used,
    any_value(sizes.codebook_size) - count(*) as codes_dead,
    exp(-sum(shares.share * ln(shares.share))) as perplexity,
    max(shares.share) as top_code_share
from shares
left join sizes on shares.dvae_id = sizes.dvae_id
group by shares.dvae_id
order by shares.dvae_id

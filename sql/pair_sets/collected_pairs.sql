-- name: collected_pairs
-- purpose: Pairs as they were collected: all, or those of named sources, a split, licences, languages, or from a CLIP score on.
-- params: sources (text, optional), split (text, optional), licences (text, optional), languages (text, optional), clip_id (text, optional), min_clip_score (number, optional)
-- reads: pairs, clip_scores, latest_artifacts
-- returns: pair_id, source, clip_id, clip_score
-- A list is written with commas: licences=CC0-1.0,CC-BY-4.0. Pairs without a score stay unless a least one is asked for.
with scored as (
    select
        pair_id,
        clip_id,
        max(clip_score) as clip_score
    from clip_scores
    where clip_id = coalesce($clip_id, (select artifact_id from latest_artifacts where kind = 'clip'))
    group by
        pair_id,
        clip_id
)

select
    pairs.pair_id,
    pairs.source,
    scored.clip_id,
    scored.clip_score
from pairs
left join scored on pairs.pair_id = scored.pair_id
where
    ($sources::varchar is null or list_contains(string_split($sources::varchar, ','), pairs.source))
    and ($split::varchar is null or pairs.split = $split::varchar)
    and ($licences::varchar is null or list_contains(string_split($licences::varchar, ','), pairs.licence))
    and ($languages::varchar is null or list_contains(string_split($languages::varchar, ','), pairs.language))
    and ($min_clip_score::double is null or scored.clip_score >= $min_clip_score::double)

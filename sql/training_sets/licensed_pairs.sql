-- name: licensed_pairs
-- purpose: Captioned pairs under named licences, or from named languages, whose CLIP score is at least a number.
-- params: root (text), tokenizer_id (text), dvae_id (text), clip_id (text), min_clip_score_quantile (number = 0), min_clip_score (number = -1), licences (text, optional), languages (text, optional)
-- reads: training_pairs, image_tokens, pairs
-- returns: pair_id, crop, split, caption, source, page_url, text_tokens, image_tokens; the export shuffles them
-- A list is written with commas: licences=CC0-1.0,CC-BY-4.0. A list that is not given leaves nothing out.
with candidates as (
    select *
    from training_pairs
    where
        tokenizer_id = $tokenizer_id
        and clip_id = $clip_id
),

threshold as (
    select greatest(quantile_cont(clip_score, $min_clip_score_quantile::double), $min_clip_score::double) as min_clip_score
    from candidates
),

allowed as (
    select pair_id
    from pairs
    where
        ($licences::varchar is null or list_contains(string_split($licences::varchar, ','), licence))
        and ($languages::varchar is null or list_contains(string_split($languages::varchar, ','), language))
)

select
    candidates.pair_id,
    tokens.crop,
    candidates.split,
    candidates.caption,
    candidates.source,
    candidates.page_url,
    candidates.text_tokens,
    tokens.image_tokens
from candidates
cross join threshold
inner join image_tokens($root) as tokens on candidates.pair_id = tokens.pair_id
where
    tokens.dvae_id = $dvae_id
    and candidates.clip_score >= threshold.min_clip_score
    and candidates.pair_id in (select pair_id from allowed)
    -- one look at each validation picture is enough; crops are there to vary what is learned from
    and (candidates.split = 'train' or tokens.crop = 0)

-- name: safe_pairs
-- purpose: The captioned pairs whose CLIP score is not among the lowest and whose safety scores are low enough.
-- params: root (text), tokenizer_id (text), dvae_id (text), clip_id (text), min_clip_score_quantile (number = 0), safety_id (text), max_nsfw_score (number = 0.5), max_watermark_score (number = 0.5)
-- reads: training_pairs, image_tokens, safety_scores
-- returns: pair_id, crop, split, caption, source, page_url, text_tokens, image_tokens; the export shuffles them
with candidates as (
    select *
    from training_pairs
    where
        tokenizer_id = $tokenizer_id
        and clip_id = $clip_id
),

threshold as (
    select quantile_cont(clip_score, $min_clip_score_quantile::double) as min_clip_score
    from candidates
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
-- a pair without scores is left out: nobody has looked at it
inner join safety_scores as safety on candidates.pair_id = safety.pair_id
where
    tokens.dvae_id = $dvae_id
    and candidates.clip_score >= threshold.min_clip_score
    and safety.safety_id = $safety_id
    and safety.nsfw_score <= $max_nsfw_score::double
    and safety.watermark_score <= $max_watermark_score::double
    -- one look at each validation picture is enough; crops are there to vary what is learned from
    and (candidates.split = 'train' or tokens.crop = 0)

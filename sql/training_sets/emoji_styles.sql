-- name: emoji_styles
-- purpose: Captioned pairs of concepts that are drawn in several styles, under licences that do not ask the same of weights.
-- params: root (text), tokenizer_id (text), dvae_id (text), clip_id (text), min_clip_score_quantile (number = 0), min_styles (number = 6)
-- reads: training_pairs, image_tokens, pairs
-- returns: pair_id, crop, split, caption, source, page_url, text_tokens, image_tokens; the export shuffles them
-- A page's address names the pack and the concept, as examples/emoji_styles/build_corpus.py writes it. A concept of few styles is seen
-- too seldom to be learned. "man judge" and "woman judge" are left out, because "judge" is there, and so are skin tones.
with candidates as (
    select
        *,
        regexp_extract(page_url, 'concept=([^&]+)$', 1) as concept,
        regexp_extract(page_url, '@iconify-json/([a-z-]+)', 1) as pack
    from training_pairs
    where
        tokenizer_id = $tokenizer_id
        and clip_id = $clip_id
        and pair_id not in (select pair_id from pairs where contains(upper(licence), '-SA'))
),

threshold as (
    select quantile_cont(clip_score, $min_clip_score_quantile::double) as min_clip_score
    from candidates
),

known as (
    select concept
    from candidates
    where
        concept != ''
        and not regexp_matches(concept, '^(man|woman|men|women)-')
        and not contains(concept, 'skin-tone')
    group by concept
    having count(distinct pack) >= $min_styles::integer
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
    and candidates.concept in (select concept from known)
    -- one look at each validation picture is enough; crops are there to vary what is learned from
    and (candidates.split = 'train' or tokens.crop = 0)

-- name: find_pairs
-- purpose: Pairs whose captions hold all these words or parts of words, in any order and case.
-- params: words (text), limit (integer = 24)
-- reads: pairs
-- returns: pair_id, caption, split, source, page_url, image_url, part_path; shortest captions first
with asked as (
    select list_filter(string_split_regex(lower($words), '\s+'), lambda word: word != '') as words
),

one_pair as (
    select arg_min(rowid, source) as chosen
    from pairs
    group by pair_id
)

select
    pairs.pair_id,
    pairs.caption,
    pairs.split,
    pairs.source,
    pairs.page_url,
    pairs.image_url,
    pairs.part_path
from pairs
cross join asked
where
    pairs.rowid in (select chosen from one_pair)
    and list_bool_and(list_transform(asked.words, lambda word: contains(lower(pairs.caption), word))) is not false
order by
    length(pairs.caption),
    pairs.pair_id
limit $limit

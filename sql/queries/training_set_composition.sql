-- name: training_set_composition
-- purpose: What a training set consists of: its pairs by split, source, host, language and licence.
-- params: root (text), training_set_id (text, optional), limit (integer = 10)
-- reads: training_set_pairs, newest_training_set, pairs
-- returns: facet, value, num_pairs, share; most frequent first, at most limit values of a facet
with chosen as (
    select
        members.pair_id,
        members.split,
        any_value(pairs.source order by pairs.source) as source,
        any_value(host_of(pairs.image_url, pairs.page_url) order by pairs.source) as host,
        any_value(pairs.language order by pairs.source) as language,
        any_value(coalesce(nullif(pairs.licence, ''), '(not known)') order by pairs.source) as licence
    from training_set_pairs($root) as members
    left join pairs on members.pair_id = pairs.pair_id
    where members.training_set_id = coalesce($training_set_id, (select training_set_id from newest_training_set))
    group by
        members.pair_id,
        members.split
),

facets as (
    unpivot chosen
    on split, source, host, language, licence
    into name facet value value
)

select
    facet,
    value,
    count(*) as num_pairs,
    count(*) / (select count(*) from chosen) as share
from facets
group by
    facet,
    value
qualify row_number() over (partition by facet order by num_pairs desc, value) <= $limit
order by
    facet,
    num_pairs desc,
    value

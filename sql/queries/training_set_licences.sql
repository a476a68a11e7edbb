-- name: training_set_licences
-- purpose: What a training set holds by source and licence: whom to name, and what may be published.
-- params: root (text), training_set_id (text)
-- reads: pairs
-- returns: source, licence, num_pairs, num_pages; most pairs first, licence null where nothing is known
with chosen as (
    select distinct pair_id
    from read_parquet(files_under($root, '/training_sets/' || $training_set_id || '/*.parquet'))
),

-- a pair that two sources hold is one pair, that of the source which training_pairs takes it from
found as (
    select pairs.*
    from pairs
    inner join chosen on pairs.pair_id = chosen.pair_id
    qualify row_number() over (partition by pairs.pair_id order by pairs.source) = 1
)

select
    source,
    licence,
    count(*) as num_pairs,
    count(distinct page_url) as num_pages
from found
group by
    source,
    licence
order by
    num_pairs desc,
    source,
    licence

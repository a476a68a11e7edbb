-- name: training_set_pages
-- purpose: The web pages behind a training set, and how many of its pairs each gave.
-- params: root (text), training_set_id (text), limit (integer = 100)
-- reads: pairs
-- returns: source, page_url, num_pairs, example_caption; most pairs first
with chosen as (
    select distinct pair_id
    from read_parquet(files_under($root, '/training_sets/' || $training_set_id || '/*.parquet'))
)

select
    pairs.source,
    pairs.page_url,
    count(*) as num_pairs,
    min(pairs.caption) as example_caption
from chosen
inner join pairs on chosen.pair_id = pairs.pair_id
group by
    pairs.source,
    pairs.page_url
order by
    num_pairs desc,
    pairs.source,
    pairs.page_url
limit $limit

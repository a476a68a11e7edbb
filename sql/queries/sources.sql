-- name: sources
-- purpose: What each source contributed.
-- reads: pairs
-- returns: source, num_pairs, num_train, num_validation, num_pages, mean_caption_words; largest first
select
    source,
    count(*) as num_pairs,
    count(*) filter (where split = 'train') as num_train,
    count(*) filter (where split = 'validation') as num_validation,
    count(distinct page_url) as num_pages,
    avg(num_caption_words) as mean_caption_words
from pairs
group by source
order by
    num_pairs desc,
    source

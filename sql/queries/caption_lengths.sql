-- name: caption_lengths
-- purpose: How long captions are, in words.
-- reads: pairs
-- returns: num_caption_words, num_pairs, share; shortest first
select
    num_caption_words,
    count(*) as num_pairs,
    count(*) / sum(count(*)) over () as share
from pairs
group by num_caption_words
order by num_caption_words

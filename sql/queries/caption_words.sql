-- name: caption_words
-- purpose: How many words the captions of downloaded candidates have, and how many were kept.
-- params: root (text), source (text, optional), most (integer = 40)
-- reads: measured
-- returns: num_caption_words, num_seen, num_kept; shortest first, longer ones than `most` as one
select
    least(num_caption_words, $most) as num_caption_words,
    count(*) as num_seen,
    count(*) filter (where stage = 'kept') as num_kept
from measured($root)
where source = coalesce($source, source)
group by least(num_caption_words, $most)
order by num_caption_words

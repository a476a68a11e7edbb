-- name: languages
-- purpose: Which languages the captions of downloaded candidates are in, and how many were kept.
-- params: root (text), source (text, optional)
-- reads: measured
-- returns: language, num_seen, num_kept; most frequent first
select
    language,
    count(*) as num_seen,
    count(*) filter (where stage = 'kept') as num_kept
from measured($root)
where source = coalesce($source, source)
group by language
order by
    num_seen desc,
    language

-- name: image_sizes
-- purpose: How large downloaded images are, and how many were kept.
-- params: root (text), source (text, optional)
-- reads: measured
-- returns: short_side_from, short_side_to, num_seen, num_kept; in pixels, by powers of the square root of two, smallest first
with bins as (
    select
        floor(2 * log2(least(width, height)))::integer as bin,
        stage
    from measured($root)
    where
        source = coalesce($source, source)
        and width is not null
)

select
    round(pow(2, bin / 2.0), 1) as short_side_from,
    round(pow(2, (bin + 1) / 2.0), 1) as short_side_to,
    count(*) as num_seen,
    count(*) filter (where stage = 'kept') as num_kept
from bins
group by bin
order by bin

-- name: aspect_ratios
-- purpose: How wide or high downloaded images are, and how many were kept.
-- params: root (text), source (text, optional)
-- reads: measured
-- returns: ratio_from, ratio_to, num_seen, num_kept; width over height by quarters of a doubling, highest images first
with bins as (
    select
        -- bins are centred on their round ratios, so that all squares are in one
        greatest(least(round(4 * log2(width / height)), 16), -16)::integer as bin,
        stage
    from measured($root)
    where
        source = coalesce($source, source)
        and width is not null
)

select
    round(pow(2, (bin - 0.5) / 4.0), 3) as ratio_from,
    round(pow(2, (bin + 0.5) / 4.0), 3) as ratio_to,
    count(*) as num_seen,
    count(*) filter (where stage = 'kept') as num_kept
from bins
group by bin
order by bin

-- name: remove_repeated_rows
-- purpose: Leave one row per pair and crop of those chosen for a training set, whatever the query joined.
-- reads: chosen_pairs
-- returns: Count
delete from chosen_pairs
where rowid not in (
    select min(rowid)
    from chosen_pairs
    group by
        pair_id,
        crop
)

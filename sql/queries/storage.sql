-- name: storage
-- purpose: How many files, rows and bytes each kind of artefact takes, and each folder of it.
-- reads: ingested_parts, checkpoints
-- returns: artifact_kind, folder, num_files, num_rows, num_bytes, bytes_per_row; largest first
with files as (
    select
        artifact_kind,
        regexp_replace(part_path, '/[^/]*$', '') as folder,
        num_rows,
        num_bytes
    from ingested_parts
    where artifact_kind <> 'training_set'  -- its manifest is small, and its parts are not in the ledger
    union all
    select
        kind,
        path,
        null,
        num_bytes
    from checkpoints
)

select
    artifact_kind,
    folder,
    count(*) as num_files,
    sum(num_rows)::bigint as num_rows,
    sum(num_bytes)::bigint as num_bytes,
    sum(num_bytes) / nullif(sum(num_rows), 0) as bytes_per_row
from files
group by
    artifact_kind,
    folder
order by
    num_bytes desc,
    artifact_kind,
    folder

-- name: ledger
-- purpose: Every file of the ledger, to compare it with what is on disk.
-- reads: ingested_parts
-- returns: part_path, artifact_kind, sha256, num_bytes; by path
select
    part_path,
    artifact_kind,
    sha256,
    num_bytes
from ingested_parts
order by part_path

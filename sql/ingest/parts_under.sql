-- name: parts_under
-- purpose: The ledger's files of one kind under one folder, with their content and state.
-- params: artifact_kind (text), folder (text)
-- reads: ingested_parts
-- returns: part_path, sha256, num_bytes, modified_ns; by path
select
    part_path,
    sha256,
    num_bytes,
    modified_ns
from ingested_parts
where
    artifact_kind = $artifact_kind
    and starts_with(part_path, $folder)
order by part_path

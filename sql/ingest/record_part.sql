-- name: record_part
-- purpose: Record in the ledger a file whose rows are inserted in the same transaction.
-- params: part_path (text), artifact_kind (text), sha256 (text), num_rows (integer), num_bytes (integer), modified_ns (integer), now (timestamp)
-- returns: nothing
insert into ingested_parts (part_path, artifact_kind, sha256, num_rows, num_bytes, modified_ns, ingested_at)
values ($part_path, $artifact_kind, $sha256, $num_rows, $num_bytes, $modified_ns, $now)

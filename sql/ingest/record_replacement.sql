-- name: record_replacement
-- purpose: Keep in the history that the rows of a part are about to be removed.
-- params: part_path (text), new_sha256 (text), now (timestamp)
-- reads: ingested_parts
-- returns: nothing
insert into replaced_parts (part_path, artifact_kind, old_sha256, new_sha256, num_old_rows, ingested_at)
select
    part_path,
    artifact_kind,
    sha256,
    $new_sha256,
    num_rows,
    $now
from ingested_parts
where part_path = $part_path

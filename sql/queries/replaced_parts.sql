-- name: replaced_parts
-- purpose: Which files changed or vanished after they were catalogued.
-- reads: replaced_parts
-- returns: ingested_at, part_path, num_old_rows, old_sha256, new_sha256; newest first
select
    ingested_at,
    part_path,
    num_old_rows,
    old_sha256,
    new_sha256
from replaced_parts
order by
    ingested_at desc,
    part_path

-- name: touch_part
-- purpose: Record that a file of the ledger was written again with the same content.
-- params: part_path (text), modified_ns (integer)
-- returns: nothing
update ingested_parts
set modified_ns = $modified_ns
where part_path = $part_path

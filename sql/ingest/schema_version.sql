-- name: schema_version
-- purpose: Record a migration that was just applied.
-- params: version (integer), name (text), sha256 (text), now (timestamp)
-- returns: nothing
insert into schema_version (version, name, sha256, applied_at)
values ($version, $name, $sha256, $now)

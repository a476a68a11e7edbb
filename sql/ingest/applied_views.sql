-- name: applied_views
-- purpose: Record the text that the views were made from.
-- params: sha256 (text), now (timestamp)
-- returns: nothing
insert into applied_views (sha256, applied_at)
values ($sha256, $now)

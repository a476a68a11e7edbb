-- name: files_under
-- purpose: A pattern of files under a data root, whatever signs of a pattern are in the root's own name.
-- params: root (text), pattern (text)
-- returns: text
create or replace macro files_under(root, pattern) as
replace(replace(replace(root, '[', '[[]'), '*', '[*]'), '?', '[?]') || pattern;

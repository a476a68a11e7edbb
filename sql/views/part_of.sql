-- name: part_of
-- purpose: Path of a part relative to its data root, however the root was written: with more slashes, relative, or as a bucket.
-- params: filename (text), artifact (text)
-- returns: the path from the artefact's folder on
create or replace macro part_of(filename, artifact) as
artifact || '/' || split_part(filename, '/' || artifact || '/', -1);

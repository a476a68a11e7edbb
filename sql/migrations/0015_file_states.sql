-- name: 0015_file_states
-- purpose: When a catalogued file was last written, so that it is hashed once, and the largest token of a part, so that damage shows.

alter table ingested_parts add column modified_ns bigint;
comment on column ingested_parts.modified_ns is 'When the file was last written, nanoseconds since 1970: with the same size and time it is not hashed again. Null if unknown, or too new to tell.';

alter table image_token_shards add column largest_image_token integer;
comment on column image_token_shards.largest_image_token is 'Largest token of the part, which must be an entry of the codebook; null if it was catalogued before this was measured.';

-- name: host_of
-- purpose: The host that an address names, with its port; nothing of the kind for local files.
-- params: url (text), page_url (text)
-- returns: host
create or replace macro host_of(url, page_url) as
coalesce(
    nullif(regexp_extract(url, '^https?://([^/?#]+)', 1), ''),
    nullif(regexp_extract(page_url, '^https?://([^/?#]+)', 1), ''),
    '(local files)'
);

-- name: 0012_pair_licences
-- purpose: Under which licence a picture was published, as far as is known, and which file its page was read from.

alter table pairs add column licence varchar;
alter table pairs add column document varchar;
comment on column pairs.licence is 'Licence as the page or table gives it: an address or a name; null if it says nothing.';
comment on column pairs.document is 'File that held the page or row, e.g. a WARC; null for pages that were fetched.';

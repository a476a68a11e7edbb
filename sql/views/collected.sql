-- name: collected
-- purpose: The outcome of every candidate in every catalogued collection under a data root.
-- params: root (text)
-- reads: collections
-- returns: collection_id, candidate_id, url, host, stage, reason
create or replace macro collected(root) as table
select
    collections.collection_id,
    rows.candidate_id,
    rows.url,
    host_of(rows.url, rows.page_url) as host,
    funnel_stage(rows.stage, rows.reason) as stage,
    rows.reason
from read_parquet(files_under(root, '/collections/*/*.parquet'), hive_partitioning = false, filename = true) as rows
inner join collections on part_of(rows.filename, 'collections') = collections.part_path;

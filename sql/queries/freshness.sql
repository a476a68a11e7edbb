-- name: freshness
-- purpose: When each kind of thing was last made: files by kind, runs by job, collections by source.
-- reads: ingested_parts, runs, collections
-- returns: what, name, num_things, newest_at; oldest first
select
    'files' as what,
    artifact_kind as name,
    count(*) as num_things,
    max(ingested_at) as newest_at
from ingested_parts
group by artifact_kind
union all
select
    'runs',
    job,
    count(*),
    max(started_at)
from runs
group by job
union all
select
    'collections',
    source,
    count(*),
    max(finished_at)
from collections
group by source
order by
    newest_at nulls first,
    what,
    name

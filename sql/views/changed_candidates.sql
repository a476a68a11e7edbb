-- name: changed_candidates
-- purpose: What changed from each source's last collection but one to its last.
-- params: root (text)
-- reads: collections, collected
-- returns: source, collection_id, change, host, outcome, was, url
create or replace macro changed_candidates(root) as table
with places as (
    select
        collection_id,
        source,
        row_number() over (partition by source order by number desc) as age
    from collections
    qualify age <= 2
),

-- One row a candidate. The same image found once more, on another page, is no candidate of its own.
outcomes_of as (
    select
        places.source,
        places.age,
        found.candidate_id,
        any_value(found.url) as url,
        any_value(found.host) as host,
        bool_or(found.stage = 'kept') as is_kept,
        if(is_kept, 'kept', min(found.reason)) as outcome
    from collected(root) as found
    inner join places on found.collection_id = places.collection_id
    where found.reason <> 'duplicate_candidate'
    group by
        places.source,
        places.age,
        found.candidate_id
),

both_times as (
    select
        coalesce(now.source, earlier.source) as source,
        coalesce(now.url, earlier.url) as url,
        coalesce(now.host, earlier.host) as host,
        now.outcome,
        earlier.outcome as was,
        case
            when earlier.candidate_id is null then if(now.is_kept, 'new', 'new, left out')
            when now.candidate_id is null then if(earlier.is_kept, 'gone', 'gone, was left out')
            when now.outcome in ('no_longer_shown', 'caption_changed', 'page_gone', 'not_in_source')
                then if(earlier.is_kept, 'gone', 'gone, was left out')
            when earlier.is_kept then 'newly left out'
            when now.is_kept then 'recovered'
            else 'other reason'
        end as change
    from (select * from outcomes_of where age = 1) as now
    full join (select * from outcomes_of where age = 2) as earlier
        on now.source = earlier.source and now.candidate_id = earlier.candidate_id
    where
        now.outcome is distinct from earlier.outcome
        -- Withdrawn, which was said at the time.
        and not (now.candidate_id is null and earlier.outcome in ('no_longer_shown', 'caption_changed', 'page_gone', 'not_in_source'))
)

select
    both_times.source,
    places.collection_id,
    both_times.change,
    both_times.host,
    both_times.outcome,
    both_times.was,
    both_times.url
from both_times
inner join places on both_times.source = places.source and places.age = 1
-- a first collection has nothing to be compared with
where both_times.source in (select places.source from places where places.age = 2);

-- name: 0009_collections
-- purpose: What each collection of a source brought, so that one can be compared with the next.

create table collections (
    collection_id varchar not null,
    source varchar not null,
    number integer not null,
    finished_at timestamp not null,
    facts json not null,
    part_path varchar not null
);
comment on table collections is 'Collections of a source: each time its pages were read, its images fetched, or its filters changed.';
comment on column collections.collection_id is 'The source and the number.';
comment on column collections.source is 'Name of the source.';
comment on column collections.number is 'How many times the source had been collected by then, from 1.';
comment on column collections.finished_at is 'When it ended, UTC.';
comment on column collections.facts is 'What was read: pages, those that had not changed, those left for another time, addresses asked for, and the code.';
comment on column collections.part_path is 'Parquet file with the outcome of every candidate; read them with collected(root).';

create table collection_counts (
    collection_id varchar not null,
    host varchar not null,
    stage varchar not null,
    reason varchar not null,
    num_candidates bigint not null,
    part_path varchar not null
);
comment on table collection_counts is 'How many candidates of each host came to which end in a collection.';
comment on column collection_counts.collection_id is 'The collection.';
comment on column collection_counts.host is 'Host of the image, or of the page that was left out.';
comment on column collection_counts.stage is 'kept, or the stage of the funnel where they were dropped: discover, download, decode or filter.';
comment on column collection_counts.reason is 'Code of the reason; empty for those that were kept.';
comment on column collection_counts.num_candidates is 'How many.';
comment on column collection_counts.part_path is 'Parquet file that holds the outcomes.';

-- name: 0000_schema_version
-- purpose: Which migrations and views this catalog has, so that an edited migration is noticed.

create table schema_version (
    version integer not null,
    name varchar not null,
    sha256 varchar not null,
    applied_at timestamp not null
);
comment on table schema_version is 'Migrations that were applied, in order.';
comment on column schema_version.version is 'Number of the migration.';
comment on column schema_version.name is 'Name of the file in sql/migrations/.';
comment on column schema_version.sha256 is 'SHA-256 of its text when it was applied; an edited file is refused.';
comment on column schema_version.applied_at is 'When it was applied, UTC.';

create table applied_views (
    sha256 varchar not null,
    applied_at timestamp not null
);
comment on table applied_views is 'Which text of sql/views/ the views and macros were made from: one row.';
comment on column applied_views.sha256 is 'SHA-256 of all files of sql/views/.';
comment on column applied_views.applied_at is 'When they were made, UTC.';

-- Schedules with a validity and a range of the day, who holds a workflow since when, and what broke it last.

alter table workflow
    -- A text of model/schedule.py; cron is one of its forms. '' in schedule_by: the workflow's own default.
    add column schedule_by text not null default '',
    add column valid_from  timestamptz,
    add column valid_to    timestamptz check (valid_to > valid_from),
    add column runs_left   integer check (runs_left >= 0),          -- null: any number
    add column hours       text not null default ''                 -- a run may begin within it, in the workflow's zone
        check (hours ~ '^(([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9])?$'),
    add column skipped_at  timestamptz,                             -- the last tick that was skipped
    -- Paused, stopped or over since then, by whom, and how often that was warned about (cleanupPausedWorkflows).
    add column held_at     timestamptz,
    add column held_by     text not null default '',
    add column warnings    smallint not null default 0 check (warnings >= 0),
    add column warned_at   timestamptz,
    add column error_class text not null default '',
    add constraint workflow_schedule_length check (length(schedule) between 1 and 200);

update workflow set held_at = now() where state in (13, 20);

-- What ran when, for a day of the heat map, however long a run took. The ends of a span never come before its beginning:
-- an expression that could fail would make a run fail.
create index workflow_run_span on workflow_run
    using gist (tstzrange(started_at, greatest(started_at, coalesce(finished_at, 'infinity')), '[]'))
    where started_at is not null;

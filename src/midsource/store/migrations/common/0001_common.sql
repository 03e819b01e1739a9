-- What every instance has, whichever its role.

create table instance (
    singleton  boolean primary key default true check (singleton),
    name       text not null,
    role       text not null check (role in ('marketing', 'mid')),
    -- Renewed by init, restore and clone: a cursor of another generation is refused (409 rewound).
    generation uuid not null,
    created_at timestamptz not null default now()
);

-- Only values that differ from their default, and the pointers, which are always shown. Names: model/options.py.
create table option (
    name        text primary key,
    value       text not null,
    modified_at timestamptz not null default now(),
    modified_by text not null,
    version     bigint not null default 1
);

-- One row a life of a process: what `ps` and the doctor read. A row not beaten for 30 s is a dead one. A process that is
-- started again keeps its name and gets a row of its own, so that what the earlier life held can still be told from it.
create table process (
    name       text not null,              -- web@marketing, mta@mid1.2
    kind       text not null check (kind in ('web', 'worker', 'mta', 'inbound')),
    host       text not null,
    pid        integer not null,
    executor   text primary key,           -- unique per start; fences what an earlier life left behind
    started_at timestamptz not null default now(),
    beat_at    timestamptz not null default now()
);

create table workflow (
    name                 text primary key,
    state                smallint not null default 11 check (state in (0, 2, 11, 13, 20)),
    failed               boolean not null default false,
    schedule             text not null,             -- cron, five fields
    zone                 text not null default 'UTC',
    next_at              timestamptz,
    last_run_at          timestamptz,
    last_success_at      timestamptz,
    consecutive_failures integer not null default 0,
    not_before           timestamptz,               -- back-off of the circuit breaker; null: none
    last_error           text not null default '',
    created_at           timestamptz not null default now(),
    version              bigint not null default 1
);

create table workflow_run (
    id           bigint generated always as identity primary key,
    workflow     text not null references workflow (name),
    asked_at     timestamptz not null default now(),
    asked_by     text not null default 'schedule',
    -- Outbox of the engine: the next slice is due then, and is handed to the queue once.
    due_at       timestamptz not null default now(),
    enqueued_at  timestamptz,
    started_at   timestamptz,
    finished_at  timestamptz,
    beat_at      timestamptz,
    executor     text,
    slices       integer not null default 0,
    rows_read    bigint not null default 0,
    rows_written bigint not null default 0,
    rows_refused bigint not null default 0,
    window_from  text not null default '',
    window_to    text not null default '',
    outcome      text check (outcome in ('finished', 'failed', 'aborted')),
    error_class  text not null default '',
    error        text not null default '',
    check ((finished_at is null) = (outcome is null))
);
-- Never two runs of one workflow at once: the database says so, not a variable (F107, F122).
create unique index workflow_run_unfinished on workflow_run (workflow) where finished_at is null;
create index workflow_run_due on workflow_run (due_at) where finished_at is null and enqueued_at is null;
create index workflow_run_recent on workflow_run (workflow, id desc);

create table workflow_journal (
    id       bigint generated always as identity primary key,
    at       timestamptz not null default clock_timestamp(),
    workflow text not null,
    run_id   bigint,                        -- no foreign key: the journal can never fail for the cause of the run (F105)
    level    text not null check (level in ('info', 'warning', 'error')),
    line     text not null
);
create index workflow_journal_of on workflow_journal (workflow, id desc);

-- Work asked for by people or schedules about one delivery; the engine carries it out, this row tells the story.
create sequence job_serial as bigint;
create table job (
    id          text primary key,           -- prepare-<delivery>-<serial>
    kind        text not null,
    subject     bigint not null,            -- delivery id
    asked_at    timestamptz not null default now(),
    asked_by    text not null default '',
    due_at      timestamptz not null default now(),
    enqueued_at timestamptz,
    slices      integer not null default 0,
    failures    integer not null default 0, -- slices in a row that failed for a passing reason
    executor    text,
    started_at  timestamptz,
    beat_at     timestamptz,
    finished_at timestamptz,
    outcome     text check (outcome in ('finished', 'failed', 'aborted')),
    error       text not null default '',
    progress    jsonb not null default '{}',
    check ((finished_at is null) = (outcome is null))
);
create unique index job_unfinished on job (kind, subject) where finished_at is null;
create index job_due on job (due_at) where finished_at is null and enqueued_at is null;
create index job_of_subject on job (subject, asked_at desc);

-- Make the monthly partition of a table keyed by delivery id (months are yyyymm << 32). Idempotent, safe under races.
create function ensure_month(parent text, yyyymm integer) returns void language plpgsql as $$
declare
    child text := parent || '_' || yyyymm;
    nextm integer := case when yyyymm % 100 = 12 then yyyymm + 89 else yyyymm + 1 end;
begin
    if to_regclass(child) is not null then return; end if;
    perform pg_advisory_xact_lock(hashtext('partition:' || child));
    if to_regclass(child) is not null then return; end if;
    -- Each row is updated once or twice after it is written: room on its page keeps those updates off the indexes
    -- (measured: 73 000 second updates a second against 28 000 to 49 000 on full pages, at the same size on disk).
    execute format('create table %I partition of %I for values from (%s) to (%s) with (fillfactor = 85)',
                   child, parent, yyyymm::bigint << 32, nextm::bigint << 32);
end $$;

-- Make the daily partition of a table keyed by day. Idempotent, safe under races.
create function ensure_day(parent text, the_day date) returns void language plpgsql as $$
declare
    child text := parent || '_' || to_char(the_day, 'YYYYMMDD');
begin
    if to_regclass(child) is not null then return; end if;
    perform pg_advisory_xact_lock(hashtext('partition:' || child));
    if to_regclass(child) is not null then return; end if;
    execute format('create table %I partition of %I for values from (%L) to (%L)', child, parent, the_day, the_day + 1);
end $$;

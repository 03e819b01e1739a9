-- What the doctor finds, does and tells. The rules of findings are model/finding.py.

create table finding (
    id          bigint generated always as identity primary key,
    check_name  text not null,
    subject     text not null default '',
    severity    text not null check (severity in ('info', 'warning', 'error', 'critical')),
    evidence    text not null,
    cause       text not null,
    remedy      text not null,
    answers     text[] not null default '{}',     -- known failures: F30
    healable    boolean not null default false,
    opened_at   timestamptz not null,
    seen_at     timestamptz not null,
    changed_at  timestamptz not null,
    closed_at   timestamptz,
    times_seen  integer not null default 1,
    clean_looks smallint not null default 0,
    muted_until timestamptz,
    muted_by    text not null default ''
);
-- One open finding at a time about one thing: the database says so.
create unique index finding_open on finding (check_name, subject) where closed_at is null;
create index finding_closed on finding (closed_at desc) where closed_at is not null;

-- When each check last looked, for how long, and why it could not.
create table doctor_look (
    check_name text primary key,
    looked_at  timestamptz not null,
    seconds    real not null,
    found      integer not null,
    problem    text not null default ''
);

-- What the doctor did about a finding.
create table healing (
    id         bigint generated always as identity primary key,
    finding_id bigint not null references finding (id) on delete cascade,
    check_name text not null,
    subject    text not null,
    at         timestamptz not null,
    by         text not null,
    what       text not null,
    before     text not null default '',
    after      text not null default '',
    undo       jsonb,                             -- what undoing needs; null: it cannot be undone
    outcome    text not null check (outcome in ('done', 'failed')),
    undone_at  timestamptz,
    undone_by  text not null default ''
);
create index healing_of on healing (check_name, subject, at desc);

-- Who is told, by a channel that is not the system's own delivery.
create table supervisor (
    name         text primary key check (name ~ '^[A-Za-z][A-Za-z0-9_.-]{0,62}$'),
    channel      text not null check (channel in ('webhook', 'syslog', 'smtp')),
    address      text not null,
    severity     text not null default 'warning' check (severity in ('warning', 'error', 'critical')),
    quiet_from   time,                            -- null: no quiet hours
    quiet_to     time,
    digest_at    time,                            -- null: when the quiet hours end
    zone         text not null default 'UTC',
    language     text not null default 'en' check (language in ('en', 'fr', 'pt')),
    active       boolean not null default true,
    secret       bytea,                           -- signs webhooks; encrypted with the key of the home folder
    muted_until  timestamptz,
    muted_by     text not null default '',
    failures     integer not null default 0,      -- in a row
    failed_since timestamptz,
    last_problem text not null default '',
    last_told_at timestamptz,
    created_at   timestamptz not null default now(),
    created_by   text not null,
    check ((quiet_from is null) = (quiet_to is null))
);

-- Outbox: what is to be told, one row a change, written in the transaction of the change.
create table notification (
    id         bigint generated always as identity primary key,
    at         timestamptz not null default clock_timestamp(),
    kind       text not null check (kind in ('opened', 'worsened', 'closed', 'workflow_failed', 'workflow_recovered')),
    severity   text not null check (severity in ('info', 'warning', 'error', 'critical')),
    subject    text not null,                     -- check and subject of a finding, or name of a workflow
    finding_id bigint,
    document   jsonb not null,
    spread_at  timestamptz                        -- when it was made a telling for each supervisor who hears of it
);
create index notification_unspread on notification (id) where spread_at is null;
create index notification_age on notification (at);

-- One notification for one supervisor.
create table telling (
    notification_id bigint not null references notification (id) on delete cascade,
    supervisor      text not null references supervisor (name) on delete cascade,
    due_at          timestamptz not null,
    digest          boolean not null default false,
    tries           integer not null default 0,
    told_at         timestamptz,
    gave_up_at      timestamptz,
    primary key (notification_id, supervisor)
);
create index telling_due on telling (supervisor, due_at) where told_at is null and gave_up_at is null;

-- Whoever sets or clears the flag *failed* of a workflow, engine or operator, the change is told: in its transaction.
create function note_workflow_flag() returns trigger language plpgsql as $$
begin
    insert into notification (kind, severity, subject, document) values (
        case when new.failed then 'workflow_failed' else 'workflow_recovered' end, 'error', new.name,
        jsonb_build_object('workflow', new.name, 'failures', greatest(new.consecutive_failures, old.consecutive_failures),
                           'error', left(case when new.failed then new.last_error else old.last_error end, 600)));
    return null;
end $$;
create trigger workflow_flag after update of failed on workflow for each row
    when (old.failed is distinct from new.failed) execute function note_workflow_flag();

-- What maintenance did to tables and indexes, what it advises, and what an operator asked for.
create table maintenance_action (
    id             bigint generated always as identity primary key,
    run_id         bigint,                   -- of databaseMaintenance; no foreign key: a record outlives its run
    asked_at       timestamptz not null default clock_timestamp(),
    asked_by       text not null default '', -- '': the schedule
    was_asked      boolean not null default false, -- by name, not by the plan
    act            text not null check (act in ('analyze', 'vacuum', 'vacuum analyze', 'reindex', 'drop index')),
    relation       text not null,
    reason         text not null,
    statement      text not null,            -- as it is executed, or to be executed by the DBA
    expected_bytes bigint not null default 0, -- to read and write
    expected_gain  bigint not null default 0,
    outcome        text not null check (outcome in ('asked', 'advised', 'running', 'done', 'skipped', 'failed', 'cut')),
    began_at       timestamptz,
    ended_at       timestamptz,
    bytes_before   bigint,
    bytes_after    bigint,
    rows_after     double precision,         -- what an index held when it was rebuilt: its own yardstick
    error          text not null default ''
);
create index maintenance_action_open on maintenance_action (outcome, id) where outcome in ('asked', 'advised', 'running');
create index maintenance_action_of on maintenance_action (relation, id desc);

-- One value a day of each size and of each number that runs out: what the forecast is drawn from.
create table size_sample (
    kind  text not null check (kind in ('database', 'relation', 'disk free', 'number')),
    name  text not null,
    day   date not null,
    at    timestamptz not null,
    value bigint not null,
    most  bigint,                            -- where it ends; null: nowhere known
    primary key (kind, name, day)
);

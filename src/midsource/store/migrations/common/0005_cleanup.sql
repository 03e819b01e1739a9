-- What each step of the technical workflow `cleanup` did last (store/cleanup_status.py). A step of a run that is not over has
-- no ended_at: the next slice goes on there.
create table cleanup_step (
    name            text primary key,
    run_id          bigint not null default 0,  -- of workflow_run; 0: called without one
    began_at        timestamptz not null,
    ended_at        timestamptz,
    rows            bigint not null default 0,  -- removed in that run
    bytes           bigint not null default 0,
    seconds         double precision not null default 0,
    outcome         text check (outcome in ('finished', 'failed', 'out of time')),
    error           text not null default '',
    rows_before     bigint,                     -- found when it began; null: not counted
    rows_after      bigint,
    last_success_at timestamptz,
    failures        integer not null default 0, -- in a row
    check ((ended_at is null) = (outcome is null))
);

-- Steps that a run was asked for by name; a run without any does all.
create table cleanup_ask (
    run_id bigint not null,
    step   text not null,
    primary key (run_id, step)
);

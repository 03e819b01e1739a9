-- What a pull is known to have left out: an option set forward by hand, a mid that was restored. (Gone at the mid: feed_loss.)
-- Filled when every delivery it may concern was compared with the mid since (marketing/gaps.py).
create table pull_gap (
    id        bigint generated always as identity primary key,
    account   text not null,
    stream    text not null check (stream in ('deliveries', 'logs')),
    cause     text not null check (cause in ('set by hand', 'rewound')),
    from_at   timestamptz not null,
    to_at     timestamptz not null,
    noted_at  timestamptz not null default clock_timestamp(),
    told_at   timestamptz,                           -- rewound: when the mid had been told all that is known here
    filled_at timestamptz
);
create index pull_gap_open on pull_gap (account) where filled_at is null;

-- One comparison of a delivery with its mid, from its beginning to its end; kept for ninety days.
create table reconcile_report (
    id                 bigint generated always as identity primary key,
    delivery_id        bigint not null,
    account            text not null,
    asked_by           text not null,                -- 'schedule', or who asked
    dry_run            boolean not null default false,
    started_at         timestamptz not null,
    finished_at        timestamptz,                  -- null: under way, goes on at next_block
    next_block         bigint not null default 0,
    last_block         bigint not null default -1,   -- -1: the mid was not asked yet
    blocks             bigint not null default 0,    -- compared by their hash
    differing          bigint not null default 0,    -- with at least one row that differed
    rows               bigint not null default 0,    -- compared one by one
    missing            bigint not null default 0,    -- rows the mid has and the log had not
    behind             bigint not null default 0,    -- rows whose result had been skipped
    ahead              bigint not null default 0,    -- rows that claimed more than the mid ever knew
    changed            bigint not null default 0,    -- rows of the same revision with another state or reason
    repaired           bigint not null default 0,
    unexplained        bigint not null default 0,    -- rows the mid does not know, or that are newer than a restored mid
    unjudged           bigint not null default 0,    -- rows the feed has not come to yet
    moving_blocks      bigint not null default 0,    -- left alone because they change all the time
    lost               bigint not null default 0,    -- people targeted whose row is gone, and whom the mid never had
    totals_wrong       bigint not null default 0,    -- counters of the log that its rows did not bear out
    mid_counters_wrong bigint not null default 0,
    delivery_wrong     boolean not null default false, -- its state or figures here were not the mid's
    seconds            double precision not null default 0,
    examples           jsonb not null default '[]',  -- [{id, what, ours, mid}], at most twenty
    problem            text not null default ''      -- why it could not be compared
);
create index reconcile_report_of on reconcile_report (delivery_id, id desc);
create index reconcile_report_age on reconcile_report (started_at);

-- What failed when a technical workflow last tried it: it goes behind the others, and a run names it at its end
-- (marketing/failed_tries.py).
create table failed_try (
    step        text not null,               -- recount, statistics, comparison, or a feed: deliveries, logs
    account     text not null,
    delivery_id bigint not null default 0,   -- 0: the account itself, whatever of it
    failed_at   timestamptz not null default clock_timestamp(),
    not_before  timestamptz,                 -- the run that failed does not try again before; null: not in that run
    is_over     boolean not null,            -- its run fails by it; false: it may yet pass in that run, or is no failure
    kind        text not null,               -- class of the error
    cause       text not null,
    primary key (step, account, delivery_id)
);
create index failed_try_age on failed_try (failed_at);

-- Counters of running deliveries as they arrived, at most one in five seconds and none older than fifteen minutes, so at
-- most 180 a delivery; what the rate is measured by. Times are the mid's. A delivery that has ended has none.
create table if not exists delivery_sample (
    delivery_id bigint not null references delivery (id) on delete cascade,
    at          timestamptz not null,
    done        bigint not null,            -- messages that are over: sent, failed, cancelled
    primary key (delivery_id, at)
);

-- The list of deliveries by state or account, newest first.
create index if not exists delivery_by_state on delivery (state, id desc);
create index if not exists delivery_by_account on delivery (account, id desc);

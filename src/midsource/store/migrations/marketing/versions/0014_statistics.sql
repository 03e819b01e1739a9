-- Statistics by domain, as the mid's ledger had them at one moment; replaced as a whole (marketing/statistics.py).
create table delivery_stat (
    delivery_id bigint not null references delivery (id) on delete cascade,
    domain      text not null,               -- '': all those not among the largest
    state       smallint not null,
    reason      smallint not null,
    n           bigint not null,
    first_at    timestamptz,                 -- the first try of any of them
    last_at     timestamptz,                 -- the last change of any of them
    primary key (delivery_id, domain, state, reason)
);
create table delivery_stat_read (
    delivery_id bigint primary key references delivery (id) on delete cascade,
    read_at     timestamptz not null,        -- by the mid's clock
    domains     integer not null,
    agrees      boolean                      -- with the log's totals; null: the feed had not come so far, or it was moving
);

-- When `deliveryIndicators` last counted a delivery: it begins with those that waited longest (mid/indicators.py). Beside the
-- delivery, whose row others hold.
create table delivery_count (
    account_id  integer not null,
    delivery_id bigint not null,
    counted_at  timestamptz not null,
    is_slow     boolean not null,            -- there was not enough time to count it
    primary key (account_id, delivery_id),
    foreign key (account_id, delivery_id) references delivery (account_id, id) on delete cascade
);

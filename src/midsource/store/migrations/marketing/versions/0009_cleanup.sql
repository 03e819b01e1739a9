-- The month's partition with this delivery's log rows was dropped then; its totals stay, and are not recounted any more.
alter table delivery add column log_dropped_at timestamptz;

-- What a mid no longer had when it was asked for ("gone before T"): deliveries that may miss results, until reconciled.
create table feed_loss (
    account     text not null references external_account (name),
    stream      text not null check (stream in ('deliveries', 'logs')),
    delivery_id bigint not null,
    rows        bigint not null,           -- messages handed over and without a final outcome when it was noticed
    gone_before timestamptz not null,
    noticed_at  timestamptz not null,
    mended_at   timestamptz,
    primary key (account, stream, delivery_id)
);
create index feed_loss_open on feed_loss (delivery_id) where mended_at is null;

comment on column quarantine.since is 'of the last error: each further one renews it';

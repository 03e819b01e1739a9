-- The month's partition with this delivery's messages was dropped then; its totals stay, and are not recounted any more.
alter table delivery add column ledger_dropped_at timestamptz;

-- Up to where results of an account were forgotten: a cursor before it is answered "gone before T".
create table feed_gone (
    account_id  integer primary key,
    seq         bigint not null,            -- of the last batch forgotten
    gone_before timestamptz not null        -- its sequenced_at
);

-- Marks of journals are written in their order and forgotten by age.
create index journal_applied_age on journal_applied (applied_at);

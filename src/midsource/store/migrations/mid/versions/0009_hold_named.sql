-- A release names message by message what may have been sent since the backup. Where the policy sends them again they wait
-- as before, so nothing in the ledger tells that they were named: this does, moved in the transaction that names them.
alter table account_hold
    add column named       bigint[] not null default '{}',  -- deliveries of which every message that waited was named
    add column naming      bigint,                          -- the delivery that is being named
    add column named_up_to bigint not null default 0;       -- in it, the last message named

create or replace function hold_every_account() returns trigger language plpgsql as $$
begin
    insert into account_hold (account_id) select id from account
    on conflict (account_id) do update
        set since = clock_timestamp(), told = '{}', named = '{}', naming = null, named_up_to = 0;
    return null;
end $$;

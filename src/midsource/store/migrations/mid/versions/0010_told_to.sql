-- How far a held account was told: a delivery with more rows than one slice has time for goes on there (mid/hold.py).
alter table account_hold
    add column telling bigint not null default 0,   -- the delivery whose pages come in; 0: none yet
    add column told_to bigint not null default 0;   -- the last message of it that was told

create or replace function hold_every_account() returns trigger language plpgsql as $$
begin
    insert into account_hold (account_id) select id from account
    on conflict (account_id) do update
        set since = clock_timestamp(), told = '{}', named = '{}', naming = null, named_up_to = 0, telling = 0, told_to = 0;
    return null;
end $$;

-- Accounts whose messages are not dispatched: this database was put back, and may not know what was sent since its backup.
-- The marketing instance tells what its log knows, then releases it (mid/hold.py).
create table account_hold (
    account_id integer primary key references account (id) on delete cascade,
    since      timestamptz not null default clock_timestamp(),
    told       bigint[] not null default '{}'   -- deliveries of which everything known was told
);

-- A new generation is given by restore and clone; from that very transaction on nothing is dispatched.
create function hold_every_account() returns trigger language plpgsql as $$
begin
    insert into account_hold (account_id) select id from account
    on conflict (account_id) do update set since = clock_timestamp(), told = '{}';
    return null;
end $$;
create trigger instance_rewound after update of generation on instance
    for each row when (old.generation is distinct from new.generation) execute function hold_every_account();

-- Make partitions beside their parent and attach them: `create table … partition of` takes the parent exclusively, and while it
-- waits behind one reader (a dump, a report) every sender queues behind it. Attaching locks out other changes of the parent's
-- partitions and its maintenance, neither readers nor writers; an empty table is checked at once. After two seconds without the lock it
-- gives up: whoever asked asks again.
create function attach_new_partition(parent text, child text, low text, high text, filled integer) returns void
    language plpgsql set lock_timeout = '2s' as $$
begin
    if to_regclass(child) is not null then return; end if;
    perform pg_advisory_xact_lock(hashtext('partition:' || child));
    if to_regclass(child) is not null then return; end if;
    execute format('create table %I (like %I including all) with (fillfactor = %s)', child, parent, filled);
    execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, child, low, high);
end $$;

-- The month of a table keyed by delivery id (months are yyyymm << 32). Idempotent, safe under races. Log rows are each updated once
-- and grow by that, ledger rows once or twice and do not: the room on their pages keeps those updates off the indexes.
create or replace function ensure_month(parent text, yyyymm integer) returns void language sql as $$
    select attach_new_partition(
        parent, parent || '_' || yyyymm, (yyyymm::bigint << 32)::text,
        ((case when yyyymm % 100 = 12 then yyyymm + 89 else yyyymm + 1 end)::bigint << 32)::text,
        case parent when 'broad_log' then 40 else 85 end)
$$;

-- The day of a table keyed by day, whose rows are never updated. Idempotent, safe under races.
create or replace function ensure_day(parent text, the_day date) returns void language sql as $$
    select attach_new_partition(parent, parent || '_' || to_char(the_day, 'YYYYMMDD'), the_day::text, (the_day + 1)::text, 100)
$$;

-- The class of the error of a step of cleanup that failed: a run fails with what all of them wait for (engine/circuit.py).
alter table cleanup_step add column error_class text not null default '';

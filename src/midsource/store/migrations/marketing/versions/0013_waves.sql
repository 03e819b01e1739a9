-- A delivery's messages in waves; a delivery that makes one of itself at each tick of a schedule.
alter table delivery
    add column wave_percent        smallint check (wave_percent between 1 and 99),
    add column wave_messages       bigint check (wave_messages > 0),
    add column wave_period_seconds integer not null default 0 check (wave_period_seconds >= 0),
    add column recurrence          text not null default '',    -- a schedule (model/schedule.py); '': it does not recur
    add column recurrence_zone     text not null default 'UTC',
    add column recurrence_open     integer not null default 1 check (recurrence_open > 0), -- of it, at one time
    add column recurrence_until    timestamptz,                 -- null: no end
    add column recurrence_next_at  timestamptz,                 -- null: nobody has started it, or it is over
    add column made_of             bigint references delivery (id), -- the recurring delivery this is one of
    add column made_for            timestamptz,                 -- its tick
    add check (wave_percent is null or wave_messages is null),
    add check ((wave_percent is null and wave_messages is null) = (wave_period_seconds = 0)),
    add check ((made_of is null) = (made_for is null));
create unique index delivery_occurrence on delivery (made_of, made_for) where made_of is not null;
create index delivery_recurring on delivery (recurrence_next_at) where recurrence_next_at is not null;

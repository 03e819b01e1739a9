-- Since when a delivery has its state (mid/deliveries.move). Of older rows only two states tell it; the others count from here.
alter table delivery add column state_at timestamptz not null default now();
update delivery set state_at = case when state = 25 then received_at else coalesce(started_at, now()) end
where finished_at is null and state in (25, 51);

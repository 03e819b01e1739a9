-- The marketing instance: people, what is sent to them, and what became of each copy.

create table recipient (
    id              bigint generated always as identity primary key,
    -- 'id:<external id>' where the file has one, else 'mail:<address key>': what an import updates by.
    key             text not null unique,
    external_id     text,
    email           text,                   -- as written; null: the person has no address
    email_key       text,                   -- casefolded, A-label domain: what duplicates and quarantine compare
    domain          text,                   -- A-label, lower case
    address_problem text not null default '', -- why the address cannot be mailed (local part too long …)
    first_name      text,
    last_name       text,
    language        text,
    opted_out       boolean not null default false,
    fields          jsonb not null default '{}', -- own fields, typed by recipient_field
    created_at      timestamptz not null default now(),
    modified_at     timestamptz not null default now()
);
create index recipient_email_key on recipient (email_key);

create table recipient_field (
    name       text primary key check (name ~ '^[a-z][a-z0-9_]{0,62}$'),
    type       text not null check (type in ('text', 'integer', 'number', 'boolean', 'date')),
    created_at timestamptz not null default now()
);

create table recipient_list (
    id         bigint generated always as identity primary key,
    name       text not null unique,
    created_at timestamptz not null default now()
);
-- No foreign keys: their checks cost an import twice what storing the person does (14 of 23 us a row, measured). Who is
-- erased leaves the lists in the same transaction (marketing/recipients.py), and a target joins recipient anyway.
create table list_member (
    list_id      bigint not null,
    recipient_id bigint not null,
    primary key (list_id, recipient_id)
);
create index list_member_of on list_member (recipient_id);

create table segment (
    name       text primary key,
    expression text not null,               -- marketing/segments.py compiles it
    created_at timestamptz not null default now()
);

create table brand (
    name           text primary key,
    from_name      text not null default '',
    from_address   text not null,
    reply_to       text,
    sender_domains text[] not null,         -- allowed domains of the sender address (F74)
    unsubscribe_url text not null,          -- may use {token}
    mirror_url     text not null default '',
    created_at     timestamptz not null default now()
);

create table template (
    name                 text primary key,
    subject              text not null default '',
    html                 text not null default '',
    text                 text not null default '',
    headers              jsonb not null default '[]', -- [[name, value source], …]
    retry_count          integer not null default 5,
    retry_period_seconds integer not null default 3600,
    validity_seconds     integer not null default 432000,
    uncertain_policy     text not null default 'hold' check (uncertain_policy in ('hold', 'resend')),
    created_at           timestamptz not null default now(),
    modified_at          timestamptz not null default now()
);

create table external_account (
    name          text primary key check (name ~ '^[A-Za-z][A-Za-z0-9_]{0,62}$'), -- immutable: the pointers are named after it (F11)
    label         text not null,
    url           text not null,
    key_id        text not null,
    secret        bytea not null,           -- encrypted with the key of the home folder
    active        boolean not null default true,
    generation    uuid,                     -- of the mid, as last seen
    last_hello_at timestamptz,
    last_problem  text not null default '', -- the sentence of the last link failure; '' after a success
    created_at    timestamptz not null default now()
);

create sequence delivery_serial as bigint maxvalue 4294967295 cycle;

create table delivery (
    id                   bigint primary key,        -- yyyymm << 32 | serial
    label                text not null,
    state                smallint not null default 0
                         check (state in (0, 15, 22, 25, 37, 45, 51, 55, 62, 71, 72, 75, 85, 87, 95)),
    brand                text not null references brand (name),
    template             text references template (name),
    account              text not null references external_account (name),
    subject              text not null,
    html                 text not null,
    text                 text not null,
    from_name            text not null,
    from_address         text not null,
    reply_to             text,
    headers              jsonb not null default '[]',
    target_list          text,                      -- null: everybody
    target_expression    text not null default '',  -- '' : no condition
    contact_at           timestamptz,               -- null: as soon as sent
    validity_seconds     integer not null check (validity_seconds between 60 and 31536000),
    retry_count          integer not null check (retry_count between 0 and 100),
    retry_period_seconds integer not null check (retry_period_seconds between 1 and 604800),
    uncertain_policy     text not null check (uncertain_policy in ('hold', 'resend')),
    created_at           timestamptz not null default now(),
    modified_at          timestamptz not null default now(),
    confirmed_at         timestamptz,               -- an operator said send
    started_at           timestamptz,
    finished_at          timestamptz,
    targeted             bigint,
    excluded             bigint,
    to_deliver           bigint,
    handed_over          bigint,                    -- rows the mid accepted
    refused              bigint,                    -- rows the mid refused one by one
    findings             jsonb not null default '[]',
    phases               jsonb not null default '[]', -- [{phase, started_at, seconds, rows}]
    error                text not null default '',
    -- The last order to the mid; unconfirmed while the link is cut.
    ordered              text check (ordered in ('start', 'pause', 'resume', 'stop')),
    ordered_at           timestamptz,
    order_confirmed_at   timestamptz,
    -- What the mid last said, by the counters feed.
    figures              jsonb not null default '{}', -- {state label: count}
    figures_at           timestamptz,
    recounted_at         timestamptz,               -- its totals were compared with its log rows, at the end
    mid_revision         bigint not null default 0,
    version              bigint not null default 1
);
create index delivery_recent on delivery (created_at desc);
create index delivery_open on delivery (state) where state not in (85, 87, 95);
create index delivery_uncounted on delivery (id) where state in (85, 87, 95) and recounted_at is null;

-- The delivery log. One row for every targeted person, excluded ones too. id: 1..targeted within the delivery, dense,
-- so that ranges of it are parts, pages and reconciliation blocks.
create table broad_log (
    delivery_id  bigint not null,
    id           bigint not null,
    recipient_id bigint not null,
    email        text not null default '',
    domain       text not null default '',
    state        smallint not null check (state in (0, 1, 2, 6, 7, 61, 62)),
    reason       smallint not null default 0,
    attempts     smallint not null default 0,
    revision     integer not null default 0,  -- of the mid's ledger row; writes only go forward
    event_at     timestamptz not null,
    reply        text not null default '',
    message_id   text not null default '',
    primary key (delivery_id, id)
) partition by range (delivery_id);
create index broad_log_recipient on broad_log (recipient_id);

-- Counters over broad_log; changed only in the statement that changes its rows, by what that statement returned.
create table broad_log_total (
    delivery_id bigint not null,
    domain      text not null,
    state       smallint not null,
    reason      smallint not null default 0,
    n           bigint not null,
    primary key (delivery_id, domain, state, reason)
);

-- Parts are stored before the call, so the link never waits for a query (F01).
create table upload_part (
    delivery_id     bigint not null,
    part            text not null check (part ~ '^[0-9]+(\.[0-9]+)*$'), -- '17'; children of a split '17.1', '17.2'
    position        integer not null,         -- number of the top-level part, for order and "17 of 40"
    first_id        bigint not null,
    last_id         bigint not null,
    rows            integer not null check (rows between 1 and 5000),
    bytes           integer not null,         -- compressed
    content_hash    text not null,            -- sha-256 of the canonical NDJSON before compression
    row_hash        numeric(20) not null,     -- sum of row hashes modulo 2^64 (wire/rows.py)
    body            bytea,                    -- zstd; null once the delivery is finished
    state           text not null default 'stored' check (state in ('stored', 'acknowledged', 'split')),
    attempts        integer not null default 0,
    not_before      timestamptz,
    refused         jsonb not null default '[]', -- [{id, why}]
    stored_at       timestamptz not null default now(),
    acknowledged_at timestamptz,
    primary key (delivery_id, part)
);
create index upload_part_open on upload_part (delivery_id, position) where state = 'stored';

-- Every call over the link that failed, in the words operators search for.
create table link_event (
    id          bigint generated always as identity primary key,
    at          timestamptz not null default clock_timestamp(),
    account     text not null,
    delivery_id bigint,
    method      text not null,               -- the field's name: AppendDeliveryPart, GetMidBroadLogs …
    http_code   integer not null default 0,  -- 0: no answer
    attempt     integer not null default 1,
    line        text not null                -- the whole sentence, with part and next step
);
create index link_event_delivery on link_event (delivery_id, id desc);
create index link_event_recent on link_event (account, at);

-- Where each lane of each feed stands. Moved only in the transaction that writes the rows it covers.
create table pointer (
    account    text not null references external_account (name),
    stream     text not null check (stream in ('deliveries', 'logs')),
    lane       text not null check (lane in ('backlog', 'recent')),
    generation uuid,                         -- of the mid that gave the cursor; null: never asked
    cursor     text not null default '',     -- as the mid gave it; '': the next page starts by time, at reached_at
    seq        bigint not null default 0,    -- of the last batch applied: the lag, and where lanes meet
    start_seq  bigint not null default 0,    -- recent lane: everything from this batch on was read without a gap
    reached_at timestamptz not null,         -- sequenced_at of the last batch applied, or of the turn that found nothing more
    shown      text not null default '',     -- what the option last showed; a different text was written by hand and wins
    -- The page window outlives a slice, or a page that times out would be found too large again by every slice.
    page_rows    integer not null default 5000 check (page_rows > 0),
    page_ceiling integer not null default 20000 check (page_ceiling > 0),
    version    bigint not null default 1,
    moved_at   timestamptz not null default now(),
    primary key (account, stream, lane)
);

create table quarantine (
    address_key text primary key,
    state       smallint not null check (state in (1, 3, 4)), -- with errors, quarantine, denylisted
    reason      smallint not null,
    errors      integer not null default 0,
    since       timestamptz not null default now(),
    text        text not null default ''
);
create table denylist (
    entry      text primary key,             -- an address key, or '@domain'
    created_at timestamptz not null default now(),
    note       text not null default ''
);

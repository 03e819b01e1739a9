-- The mid-sourcing instance: what was handed over, the ledger of messages, and the feed that carries results back.
-- Every table has account_id first in its key: the store works for one account at a time.

create table account (
    id         integer generated always as identity primary key,
    name       text not null unique,
    key_id     text not null unique,
    key_hash   bytea not null,               -- sha-256 of the secret (256 random bits; nothing to stretch)
    active     boolean not null default true,
    created_at timestamptz not null default now()
);

create table delivery (
    account_id     integer not null references account (id),
    id             bigint not null,           -- the marketing instance's id
    label          text not null,
    state          smallint not null default 25
                   check (state in (25, 37, 45, 51, 55, 62, 71, 72, 75, 85, 87, 95)),
    spec           jsonb not null,            -- wire.schema.DeliverySpec
    spec_hash      text not null,
    received_at    timestamptz not null default now(),
    finalised_at   timestamptz,
    expected       bigint,                    -- messages, as confirmed by finalise
    started_at     timestamptz,
    finished_at    timestamptz,
    valid_until    timestamptz,               -- set at start: validity counts from there
    last_command   text not null default '',
    revision       bigint not null default 1, -- moves with every change of this row
    primary key (account_id, id)
);
-- What still moves by itself; a stopped delivery is open until its last message is cancelled.
create index delivery_open on delivery (state) where finished_at is null;

create table delivery_part (
    account_id   integer not null,
    delivery_id  bigint not null,
    part         text not null check (part ~ '^[0-9]+(\.[0-9]+)*$'),
    content_hash text not null,
    rows         integer not null,
    accepted     integer not null,
    row_hash     numeric(20) not null,        -- of the accepted rows, modulo 2^64
    refused      jsonb not null default '[]', -- [{id, why}]
    received_at  timestamptz not null default now(),
    primary key (account_id, delivery_id, part),
    foreign key (account_id, delivery_id) references delivery (account_id, id)
);

-- The ledger: one row per message. Written when it enters and at each outcome, never by a claim.
create table message (
    account_id  integer not null,
    delivery_id bigint not null,
    id          bigint not null,              -- broad-log id of the marketing instance
    email       text not null,
    domain      text not null,                -- A-label, lower case
    state       smallint not null default 6 check (state in (1, 2, 6, 7, 61, 62)),
    reason      smallint not null default 0,
    attempts    smallint not null default 0,
    revision    integer not null default 1,
    first_try_at timestamptz,
    event_at    timestamptz not null default now(),
    reply       text not null default '',
    message_id  text not null default '',
    data        text not null,                -- JSON object of personalisation values, as received
    primary key (account_id, delivery_id, id)
) partition by range (delivery_id);

-- What an mta process leases. Deferred messages cost nothing while they wait: they are one row of many ids here.
create table dispatch_batch (
    id          bigint generated always as identity primary key,
    account_id  integer not null,
    delivery_id bigint not null,
    destination text not null,                -- recipient domain
    ready_at    timestamptz not null,
    ids         bigint[] not null check (cardinality(ids) between 1 and 500),
    owner       text,                         -- executor of the mta process
    expires_at  timestamptz,
    token       bigint not null default 0,    -- grows with each lease: fences the earlier owner
    check ((owner is null) = (expires_at is null))
);
-- Who leases walks from destination to destination: one probe each, however many batches wait there.
create index dispatch_batch_next on dispatch_batch (account_id, delivery_id, destination, ready_at) where owner is null;
create index dispatch_batch_leased on dispatch_batch (expires_at) where owner is not null;
create index dispatch_batch_delivery on dispatch_batch (account_id, delivery_id);

-- One row per transaction that changed outcomes. Numbered after it is visible (mid/feed.py).
create sequence feed_seq as bigint;
create table feed_batch (
    id           bigint generated always as identity primary key,
    account_id   integer not null,
    day          date not null,               -- partition of its outcome rows
    rows         integer not null check (rows between 0 and 5000),
    deliveries   bigint[] not null,           -- deliveries whose state or counts it changed
    tally        jsonb not null default '[]', -- [[delivery, domain, old state, new state, n], …]; old null: a new row
    folded       boolean not null default false,
    seq          bigint unique,
    sequenced_at timestamptz,
    created_at   timestamptz not null default now(),
    check ((seq is null) = (sequenced_at is null))
);
create index feed_batch_unnumbered on feed_batch (id) where seq is null;
create index feed_batch_unfolded on feed_batch (id) where not folded;
create index feed_batch_account on feed_batch (account_id, seq);
create index feed_batch_time on feed_batch (account_id, sequenced_at, seq);

-- When the last numbering turn looked. Every batch that it did not see gets a later or equal time, also when the clock
-- steps back, so this is the time an option shows at the end of the feed.
create table feed_turn (
    singleton boolean primary key default true check (singleton),
    turned_at timestamptz not null
);
insert into feed_turn (turned_at) values ('2000-01-01 00:00Z');

-- Append-only: every attempt and every change of state, as the feed hands it on.
create table outcome (
    account_id  integer not null,
    day         date not null,
    batch_id    bigint not null,
    row         integer not null,
    delivery_id bigint not null,
    id          bigint not null,
    old_state   smallint not null,
    new_state   smallint not null,
    reason      smallint not null default 0,
    attempts    smallint not null,
    revision    integer not null,
    event_at    timestamptz not null,
    stage       text not null default '',
    reply       text not null default '',
    message_id  text not null default '',
    process     text not null default '',
    evidence    boolean not null default false, -- an attempt that changed no state: late reply, second copy
    primary key (account_id, day, batch_id, row)
) partition by range (day);

-- Counters: folded tallies. Totals = these + feed_batch rows not yet folded.
create table message_total (
    account_id  integer not null,
    delivery_id bigint not null,
    domain      text not null,
    state       smallint not null,
    n           bigint not null,
    primary key (account_id, delivery_id, domain, state)
);

-- How far each account has acknowledged each feed: what retention may drop.
create table feed_ack (
    account_id integer not null,
    stream     text not null check (stream in ('deliveries', 'logs')),
    seq        bigint not null default 0,
    asked_at   timestamptz not null default now(),
    primary key (account_id, stream)
);

-- Journal batches already committed: a COMMIT of unknown fate is replayed without doing anything twice.
create table journal_applied (
    process    text not null,
    segment    bigint not null,
    number     bigint not null,
    applied_at timestamptz not null default now(),
    primary key (process, segment, number)
);

-- Outcomes that this database refused, each set aside alone and tried again (mid/aside.py).
create table outcome_aside (
    number      bigint generated always as identity primary key,
    process     text not null,
    account_id  integer not null,
    delivery_id bigint not null,
    id          bigint not null,
    document    bytea not null,               -- JSON of mid.records.Outcome: bytes, so that no text in it can be refused
    why         text not null,
    tries       integer not null default 1,
    try_at      timestamptz not null
);
create index outcome_aside_message on outcome_aside (account_id, delivery_id, id);

-- DKIM keys by sender domain; private keys encrypted with the key of the home folder.
create table dkim_key (
    domain      text not null,
    selector    text not null,
    kind        text not null check (kind in ('rsa', 'ed25519')),
    private_key bytea not null,
    created_at  timestamptz not null default now(),
    primary key (domain, selector)
);

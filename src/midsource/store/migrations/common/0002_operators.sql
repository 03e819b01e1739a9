-- Who may use the console and the API, and what they did.

create table operator (
    id            bigint generated always as identity primary key,
    name          text not null unique check (name ~ '^[a-z][a-z0-9._@-]{0,62}$'),
    password_hash text not null,            -- argon2id, with its parameters and salt
    roles         text[] not null check (roles <@ array['admin', 'manager', 'supervisor', 'reader'] and roles <> '{}'),
    language      text not null default '',
    disabled_at   timestamptz,
    created_at    timestamptz not null default now(),
    created_by    text not null,
    -- Log-ins that failed since the last that succeeded, and until when no further one is tried.
    failures      integer not null default 0,
    not_before    timestamptz
);

-- A session ends when its row goes: at log-out, at any change of the operator's password or roles, at expires_at.
create table operator_session (
    token_hash  bytea primary key,          -- sha-256 of the cookie
    operator_id bigint not null references operator (id) on delete cascade,
    csrf        text not null,
    created_at  timestamptz not null default now(),
    seen_at     timestamptz not null default now(),
    expires_at  timestamptz not null
);
create index operator_session_of on operator_session (operator_id);
create index operator_session_expiry on operator_session (expires_at);

create table api_key (
    key_id      text primary key check (key_id ~ '^[A-Za-z0-9]{8,32}$'),
    secret_hash bytea not null,             -- sha-256: the secret is 256 random bits
    label       text not null,
    scopes      text[] not null check (scopes <@ array['see', 'deliver', 'supervise', 'administer', 'metrics'] and scopes <> '{}'),
    created_at  timestamptz not null default now(),
    created_by  text not null,
    used_at     timestamptz,
    expires_at  timestamptz,
    revoked_at  timestamptz
);

-- Who did what, to what, when; append-only. Never an address of a person and never a secret in detail.
create table audit (
    id      bigint generated always as identity primary key,
    at      timestamptz not null default clock_timestamp(),
    who     text not null,                  -- operator's name, key:<id>, cli:<system user>, system
    via     text not null check (via in ('console', 'api', 'cli', 'system')),
    verb    text not null,                  -- delivery.send, option.set, operator.add
    subject text not null default '',       -- delivery id, option name …
    detail  jsonb not null default '{}'
);
create index audit_subject on audit (subject, id desc);

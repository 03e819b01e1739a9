-- Answers given to requests that named an Idempotency-Key, kept for a day (web/api/idempotency.py).
create table api_request (
    who    text not null,
    key    text not null,
    digest bytea not null,                  -- sha-256 of the request's body
    answer text not null default '',
    at     timestamptz not null default now(),
    primary key (who, key)
);
create index api_request_age on api_request (at);

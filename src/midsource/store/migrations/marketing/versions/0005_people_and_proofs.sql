-- People are found by the beginning of their address or name; equality goes by the same index.
drop index recipient_email_key;
create index recipient_email_key on recipient (email_key text_pattern_ops, id);
create index recipient_last_name on recipient (lower(last_name) text_pattern_ops, id);
create index recipient_first_name on recipient (lower(first_name) text_pattern_ops, id);

-- Who proofs are sent to: addresses of colleagues, on top of any target.
create table seed_address (
    address    text primary key,             -- an address key
    label      text not null default '',
    created_at timestamptz not null default now()
);

-- A proof is a delivery of its own, made of another one: each chosen person's message, sent to each seed address.
alter table delivery
    add column proof_of     bigint references delivery (id), -- null: not a proof
    add column proof_number integer not null default 0 check ((proof_of is null) = (proof_number = 0)),
    add column proof_people bigint[] not null default '{}',
    add column proof_seeds  text[] not null default '{}';
create unique index delivery_proof on delivery (proof_of, proof_number) where proof_of is not null;

-- The key that both halves compute Message-IDs of a delivery from (wire/identity.py): 244 random bits in hex, drawn with the
-- delivery. '' where a delivery was made before: its content on the mid has none, and its log holds whole IDs.
alter table delivery add column if not exists message_key text not null default '';
alter table delivery alter column message_key
    set default replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');

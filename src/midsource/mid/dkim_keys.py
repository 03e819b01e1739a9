"""DKIM keys of sender domains on a mid: kept in PostgreSQL, encrypted with the key of the home folder.

A domain may have several (RSA and Ed25519, or an old and a new selector): a message is signed with every one of them.
"""

from __future__ import annotations

from midsource.mail.dkim import DkimKey, KeyKind, generate_key
from midsource.security.keys import DKIM_KEY, HomeKey
from midsource.store.database import Connection

MAX_KEYS = 4
"""Signatures on one message: two kinds, each while its successor is being published."""


def keys_of(conn: Connection, home_key: HomeKey, domain: str) -> tuple[DkimKey, ...]:
    """Return the keys of ``domain``, RSA last; Failed where one was encrypted with the key of another home."""
    rows = conn.execute(
        "select selector, private_key from dkim_key where domain = %s order by kind, created_at desc limit %s",
        (domain, MAX_KEYS),
    ).fetchall()
    return tuple(
        DkimKey.load(domain, selector, home_key.decrypt(DKIM_KEY, bytes(private))) for selector, private in rows
    )


def store(conn: Connection, home_key: HomeKey, domain: str, selector: str, kind: KeyKind, pem: str) -> DkimKey:
    """Keep a key, replacing the one under the same selector; raises UserError where ``pem`` is no usable key."""
    key = DkimKey.load(domain, selector, pem)
    conn.execute(
        "insert into dkim_key (domain, selector, kind, private_key) values (%s, %s, %s, %s) "
        "on conflict (domain, selector) do update set kind = excluded.kind, private_key = excluded.private_key, "
        "created_at = now()",
        (domain, selector, kind, home_key.encrypt(DKIM_KEY, pem.encode())),
    )
    return key


def create(conn: Connection, home_key: HomeKey, domain: str, selector: str, kind: KeyKind = "rsa") -> DkimKey:
    """Make a key and keep it; publish `mail.dkim.dns_record` of it before it is used."""
    return store(conn, home_key, domain, selector, kind, generate_key(kind))

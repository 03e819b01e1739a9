"""Sessions of operators: a row for each, found by the hash of a cookie of 256 random bits.

A session ends at log-out, IDLE_SECONDS after the last thing its operator did, LONGEST_SECONDS after log-in, and at once
when the operator's password or roles change or the operator is disabled: the row goes, so the next request finds none.
A page that refreshes itself is nothing its operator did. The cookie's value is new at each log-in, whatever the browser
brought, and is stored nowhere but in the browser. At most MAX_SESSIONS an operator; the oldest makes room.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from midsource.security.roles import Role, Visitor, permissions_of
from midsource.store.database import Connection

IDLE_SECONDS = 30 * 60
LONGEST_SECONDS = 12 * 3600
"""A working day."""
SEEN_SECONDS = 60
"""``seen_at`` is written at most this often: a page that is read costs no write."""
MAX_SESSIONS = 20
"""Browsers of one operator at the same time."""
MAX_COOKIE = 100
"""Characters; a longer one is none of ours and is not looked up."""


@dataclass(frozen=True, slots=True)
class Started:
    """A new session: what the browser keeps."""

    cookie: str
    csrf: str


@dataclass(frozen=True, slots=True)
class OpenSession:
    """One session as its operator sees it; ``ref`` names it, and opens nothing."""

    ref: str
    created_at: datetime
    seen_at: datetime


def start(conn: Connection, operator_id: int, now: datetime) -> Started:
    """Make a session; sweep what has expired and what is too many. Durable at commit."""
    cookie, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    conn.execute("delete from operator_session where expires_at <= %s or seen_at <= %s", (now, _idle_since(now)))
    conn.execute(
        "delete from operator_session where token_hash in (select token_hash from operator_session "
        "where operator_id = %s order by created_at desc, token_hash offset %s)",
        (operator_id, MAX_SESSIONS - 1),
    )
    conn.execute(
        "insert into operator_session (token_hash, operator_id, csrf, created_at, seen_at, expires_at) "
        "values (%s, %s, %s, %s, %s, %s)",
        (digest(cookie), operator_id, csrf, now, now, now + timedelta(seconds=LONGEST_SECONDS)),
    )
    return Started(cookie, csrf)


def find(conn: Connection, cookie: str, now: datetime, *, active: bool = True) -> Visitor | None:
    """Return who this cookie belongs to, or None. ``active`` is False for what a page does by itself: it keeps nothing open."""
    if not 0 < len(cookie) <= MAX_COOKIE:
        return None
    row = conn.execute(
        "select o.name, o.roles, s.csrf, s.seen_at from operator_session s join operator o on o.id = s.operator_id "
        "where s.token_hash = %s and s.expires_at > %s and s.seen_at > %s and o.disabled_at is null",
        (digest(cookie), now, _idle_since(now)),
    ).fetchone()
    if row is None:
        return None
    name, roles, csrf, seen_at = row
    if active and (now - seen_at).total_seconds() >= SEEN_SECONDS:
        conn.execute("update operator_session set seen_at = %s where token_hash = %s", (now, digest(cookie)))
    return Visitor(name, permissions_of(map(Role, roles)), "console", csrf)


def end(conn: Connection, cookie: str) -> None:
    """End the session of this cookie; none is fine."""
    conn.execute("delete from operator_session where token_hash = %s", (digest(cookie),))


def end_all(conn: Connection, operator_id: int, *, but: str = "") -> int:
    """End the sessions of an operator, but the one of the cookie ``but``; return how many."""
    return conn.execute(
        "delete from operator_session where operator_id = %s and token_hash <> %s", (operator_id, digest(but))
    ).rowcount


def end_one(conn: Connection, operator_id: int, ref: str) -> bool:
    """End one session of an operator by its ``ref``; tell whether there was one."""
    try:
        token_hash = bytes.fromhex(ref)
    except ValueError:
        return False
    return (
        conn.execute(
            "delete from operator_session where operator_id = %s and token_hash = %s", (operator_id, token_hash)
        ).rowcount
        > 0
    )


def of_operator(conn: Connection, operator_id: int, now: datetime) -> list[OpenSession]:
    """Return the sessions that are open, the one used last first."""
    rows = conn.execute(
        "select encode(token_hash, 'hex'), created_at, seen_at from operator_session "
        "where operator_id = %s and expires_at > %s and seen_at > %s order by seen_at desc, token_hash limit %s",
        (operator_id, now, _idle_since(now), MAX_SESSIONS),
    )
    return [OpenSession(*row) for row in rows]


def digest(cookie: str) -> bytes:
    """Return what of a cookie is stored."""
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).digest()


def _idle_since(now: datetime) -> datetime:
    return now - timedelta(seconds=IDLE_SECONDS)

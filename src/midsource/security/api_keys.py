"""Keys of programs: issued with scopes and an optional end, shown once, stored as a hash, revoked for good.

A key is ``<key id>.<secret>``: the id finds the row, the secret is 256 random bits, so SHA-256 needs no stretching. Scopes
are permissions (security/roles.py). ``used_at`` is written at most once a minute. A key costs a request one statement at
most: ``Keys`` remembers what it found for CACHE_SECONDS, so one that is revoked elsewhere is refused that much later.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from midsource.model.errors import Conflict, NotFound, UserError
from midsource.security import audit
from midsource.security.roles import Permission, Visitor
from midsource.store.database import Connection, scalar

CACHE_SECONDS = 2.0
"""As long as an operator who revokes a key waits anyway."""
CACHED_KEYS = 500
MAX_KEYS = 500
"""Keys that are not revoked, of one instance."""
MAX_LABEL = 100
MAX_TEXT = 200
"""Characters; a longer credential is none of ours and is not looked up."""
_KEY_ID = re.compile(r"[A-Za-z0-9]{8,32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret."""

    key_id: str
    label: str
    scopes: tuple[Permission, ...]
    created_at: datetime
    created_by: str
    used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


def issue(
    conn: Connection,
    visitor: Visitor,
    label: str,
    scopes: Sequence[Permission],
    now: datetime,
    expires_at: datetime | None = None,
) -> str:
    """Make a key and return it, the only time it is seen. Raises UserError, Conflict for a scope the visitor has not."""
    label = label.strip()
    if not 0 < len(label) <= MAX_LABEL or not label.isprintable():
        raise UserError("a key needs a label that says who uses it", f"give 1 to {MAX_LABEL} printable characters")
    if not scopes:
        raise UserError("a key needs a scope", f"choose among {', '.join(Permission)}")
    if lacking := [scope for scope in scopes if not visitor.may(scope)]:
        raise Conflict(f"{visitor.name} cannot give away what it has not: {', '.join(lacking)}", "choose other scopes")
    if expires_at is not None and expires_at <= now:
        raise UserError("the key would have ended before it began", "give an end in the future")
    if scalar(conn, "select count(*) from api_key where revoked_at is null") >= MAX_KEYS:
        raise UserError(f"there are {MAX_KEYS} keys already", "revoke what nobody uses")
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    kept = [scope.value for scope in Permission if scope in scopes]
    conn.execute(
        "insert into api_key (key_id, secret_hash, label, scopes, created_at, created_by, expires_at) "
        "values (%s, %s, %s, %s, %s, %s, %s)",
        (key_id, _hash(secret), label, kept, now, visitor.name, expires_at),
    )
    audit.record(conn, visitor, "key.add", key_id, label=label, scopes=kept, expires_at=expires_at)
    return f"{key_id}.{secret}"


def list_keys(conn: Connection, *, revoked: bool = False) -> list[ApiKey]:
    """Return the keys, the newest first; ``revoked`` shows the MAX_KEYS newest of all."""
    rows = conn.execute(
        "select key_id, label, scopes, created_at, created_by, used_at, expires_at, revoked_at from api_key "
        "where revoked_at is null or %s order by created_at desc, key_id limit %s",
        (revoked, MAX_KEYS),
    )
    return [_key(row) for row in rows]


def find(conn: Connection, key_id: str) -> ApiKey:
    """Return one key. Raises NotFound."""
    row = conn.execute(
        "select key_id, label, scopes, created_at, created_by, used_at, expires_at, revoked_at from api_key "
        "where key_id = %s",
        (key_id[:32].replace("\0", ""),),
    ).fetchone()
    if row is None:
        usable = ", ".join(key.key_id for key in list_keys(conn)[:10])
        raise NotFound(f"there is no key {key_id[:32]!r}", f"keys: {usable or 'none'}")
    return _key(row)


def revoke(conn: Connection, visitor: Visitor, key_id: str, now: datetime) -> ApiKey:
    """Refuse a key from the commit on. Raises NotFound; a key that is revoked already stays so."""
    key = find(conn, key_id)
    changed = conn.execute(
        "update api_key set revoked_at = %s where key_id = %s and revoked_at is null", (now, key.key_id)
    ).rowcount
    if changed:
        audit.record(conn, visitor, "key.revoke", key.key_id, label=key.label)
    return key


def _key(row: Sequence[Any]) -> ApiKey:
    number, label, scopes, *rest = row
    return ApiKey(number, label, tuple(map(Permission, scopes)), *rest)


@dataclass(frozen=True, slots=True)
class _Cached:
    visitor: Visitor
    expires_at: datetime | None
    until: float


class Keys:
    """Tells whose a key is; safe to use from several threads. Remembers CACHED_KEYS, never a key that was refused."""

    def __init__(self) -> None:
        self._cached: OrderedDict[bytes, _Cached] = OrderedDict()
        self._lock = threading.Lock()

    def cached(self, text: str, now: datetime, seconds: float) -> Visitor | None:
        """Return the visitor of a key that was found lately, else None: ask ``find``."""
        with self._lock:
            found = self._cached.get(_hash(text))
        if found is None or found.until <= seconds or (found.expires_at is not None and found.expires_at <= now):
            return None
        return found.visitor

    def find(self, conn: Connection, text: str, now: datetime, seconds: float) -> Visitor | None:
        """Return the visitor of a key: ``key:<id>`` with its scopes; None for one that is wrong, revoked or ended."""
        key_id, _, secret = text[: MAX_TEXT + 1].partition(".")
        if len(text) > MAX_TEXT or not _KEY_ID.fullmatch(key_id):
            return None
        values = {"id": key_id, "hash": _hash(secret), "now": now}
        row = conn.execute(
            "with used as (update api_key set used_at = %(now)s where key_id = %(id)s and secret_hash = %(hash)s "
            "and revoked_at is null and (used_at is null or used_at <= %(now)s - interval '1 minute')) "
            "select scopes, expires_at from api_key where key_id = %(id)s and secret_hash = %(hash)s "
            "and revoked_at is null and (expires_at is null or expires_at > %(now)s)",
            values,
        ).fetchone()
        if row is None:
            return None
        visitor = Visitor(f"key:{key_id}", frozenset(map(Permission, row[0])), "api")
        with self._lock:
            self._cached[_hash(text)] = _Cached(visitor, row[1], seconds + CACHE_SECONDS)
            if len(self._cached) > CACHED_KEYS:
                self._cached.popitem(last=False)
        return visitor

    def forget(self) -> None:
        """Ask the database again for every key: after one was revoked here."""
        with self._lock:
            self._cached.clear()


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

"""Marketing accounts of a mid and their keys.

A key is ``<key id>.<secret>``: the id finds the row, the secret (256 random bits) is stored as SHA-256 only; nothing to
stretch. It is shown once, when it is made. Comparing takes the same time whether the account exists or not.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from midsource.model.errors import NotFound, UserError
from midsource.store.database import Connection

MAX_KEY_CHARACTERS = 200
"""A longer credential is not one of ours and is not looked up."""
_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_-]{0,62}$")
_NOBODY = hashlib.sha256(b"no such account").digest()


@dataclass(frozen=True, slots=True)
class Account:
    """A marketing instance as the mid knows it; each sees its own deliveries only."""

    id: int
    name: str


def create(conn: Connection, name: str) -> tuple[int, str]:
    """Make an account; return its number and its key. Raises UserError for a name that is bad or taken."""
    if not _NAME.match(name):
        raise UserError(f"{name!r} cannot name an account", "use letters, digits, _ and -, beginning with a letter")
    key_id, secret = _new_key()
    row = conn.execute(
        "insert into account (name, key_id, key_hash) values (%s, %s, %s) on conflict (name) do nothing returning id",
        (name, key_id, _hash(secret)),
    ).fetchone()
    if row is None:
        raise UserError(f"there is already an account {name!r}", "choose another name, or renew its key")
    return int(row[0]), f"{key_id}.{secret}"


def renew_key(conn: Connection, name: str) -> str:
    """Give the account a new key and return it; the old one is refused from the commit on. Raises NotFound."""
    key_id, secret = _new_key()
    row = conn.execute(
        "update account set key_id = %s, key_hash = %s where name = %s returning id", (key_id, _hash(secret), name)
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no account {name!r}", _existing(conn))
    return f"{key_id}.{secret}"


def set_active(conn: Connection, name: str, *, active: bool) -> None:
    """Let the account in or shut it out; its deliveries go on. Raises NotFound."""
    if conn.execute("update account set active = %s where name = %s", (active, name)).rowcount == 0:
        raise NotFound(f"there is no account {name!r}", _existing(conn))


def authenticate(conn: Connection, key: str) -> Account | None:
    """Return the active account whose key this is, or None."""
    key_id, _, secret = key[:MAX_KEY_CHARACTERS].partition(".")
    row = conn.execute(
        "select id, name, key_hash from account where key_id = %s and active", (key_id.replace("\0", ""),)
    ).fetchone()
    same = hmac.compare_digest(_hash(secret), bytes(row[2]) if row else _NOBODY)
    return Account(row[0], row[1]) if row and same else None


def _existing(conn: Connection) -> str:
    names = [name for (name,) in conn.execute("select name from account order by name limit 20")]
    return f"accounts: {', '.join(names) or 'none'}"


def _new_key() -> tuple[str, str]:
    return secrets.token_hex(8), secrets.token_urlsafe(32)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()

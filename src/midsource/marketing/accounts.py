"""External accounts: the mids this instance hands deliveries to, and how to reach them.

The internal name is immutable, because the pointers are named after it (F11); renaming changes the label. The key of the
mid is stored encrypted with the key of the home folder. A new account has its pointers at once (F31).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from midsource.marketing import pointers
from midsource.model.clock import Clock
from midsource.model.errors import NotFound, UserError
from midsource.model.host import HostProblem, split_url
from midsource.security import keys
from midsource.store.database import Connection, Database
from midsource.wire.client import MAX_SKEW_SECONDS, MidClient

MAX_PROBLEM = 600
"""Characters of the last problem that are kept: a sentence with its remedy."""
MAX_LABEL = 100
DEFAULT_NAME = "defaultEmailMid"
_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,62}$")
_KEY = re.compile(r"^[A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{16,128}$")


@dataclass(frozen=True, slots=True)
class ExternalAccount:
    """One external account, without its secret."""

    name: str
    label: str
    url: str
    active: bool
    generation: uuid.UUID | None
    last_hello_at: datetime | None
    last_problem: str
    key_id: str = ""
    created_at: datetime | None = None


_COLUMNS = "name, label, url, active, generation, last_hello_at, last_problem, key_id, created_at"


def add(
    conn: Connection, home: Path, *, url: str, key: str, name: str = DEFAULT_NAME, label: str = "", now: datetime
) -> None:
    """Store an account and its key, and make its pointers; the same name again replaces URL and key.

    Raises UserError for a name, URL or key that cannot be one.
    """
    if not _NAME.match(name):
        raise UserError(
            f"{name!r} cannot be an internal name", "use letters, digits and _, starting with a letter, 63 at most"
        )
    url = _checked(url)
    if not _KEY.match(key.strip()):
        raise UserError("this is no key of a mid", "copy the whole line that the mid printed: <id>.<secret>")
    key_id, _, _ = key.strip().partition(".")
    secret = keys.load(home).encrypt(keys.ACCOUNT_SECRET, key.strip().encode())
    conn.execute(
        "insert into external_account (name, label, url, key_id, secret) values (%s, %s, %s, %s, %s) "
        "on conflict (name) do update set url = excluded.url, key_id = excluded.key_id, secret = excluded.secret, "
        "active = true, last_problem = ''",
        (name, label or name, url.rstrip("/"), key_id, secret),
    )
    for stream in pointers.STREAMS:
        pointers.open_lanes(conn, name, stream, now, lambda _level, _line: None)


def _checked(url: str) -> str:
    """Return the address of a mid, its host as A-labels; raises UserError for what is none."""
    remedy = "write it like https://mid.example or http://127.0.0.1:8101"
    try:
        parts = split_url(url)
    except HostProblem as exc:
        raise UserError(f"{url!r} is no address of a mid ({exc})", remedy) from exc
    if parts.scheme not in ("http", "https") or parts.query or parts.username:
        raise UserError(f"{url!r} is no address of a mid", remedy)
    return parts.geturl()


def rename(conn: Connection, name: str, label: str) -> None:
    """Change the label; the internal name never changes. Raises UserError for one that nobody could read."""
    get(conn, name)
    text = " ".join(label.split())
    if not text or len(text) > MAX_LABEL:
        raise UserError("a label has 1 to 100 characters", "write what lists shall show")
    conn.execute("update external_account set label = %s where name = %s", (text, name))


def set_active(conn: Connection, name: str, *, active: bool) -> None:
    """Switch an account off or on; nothing is sent to or read from one that is off."""
    get(conn, name)
    conn.execute("update external_account set active = %s where name = %s", (active, name))


def get(conn: Connection, name: str) -> ExternalAccount:
    """Return an account; raises NotFound naming those that exist."""
    row = conn.execute(f"select {_COLUMNS} from external_account where name = %s", (name,)).fetchone()  # noqa: S608 - constant
    if row is None:
        known = ", ".join(account.name for account in list_accounts(conn)) or "none"
        raise NotFound(
            f"there is no external account {name!r}", f"accounts: {known}; `midsource account add` makes one"
        )
    return ExternalAccount(*row)


def list_accounts(conn: Connection) -> Sequence[ExternalAccount]:
    """Return every account by name."""
    rows = conn.execute(f"select {_COLUMNS} from external_account order by name").fetchall()  # noqa: S608 - constant
    return [ExternalAccount(*row) for row in rows]


def open_client(database: Database, home: Path, name: str, clock: Clock) -> MidClient:
    """Return a client of the account's mid; the caller closes it. Raises NotFound, UserError where the account is off."""
    with database.connection() as conn:
        account = get(conn, name)
        row = conn.execute("select secret from external_account where name = %s", (name,)).fetchone()
    assert row is not None
    if not account.active:
        raise UserError(
            f"the external account {name} is switched off (F09)",
            f"store it again with `midsource account add {name} --url … --key …`, or choose another for the delivery",
        )
    key = keys.load(home).decrypt(keys.ACCOUNT_SECRET, bytes(row[0])).decode()
    return MidClient(account.url, key, clock)


def answered(conn: Connection, name: str, generation: str | None = None) -> None:
    """Record that the mid answered: its last problem is over."""
    conn.execute(
        "update external_account set last_hello_at = clock_timestamp(), last_problem = '', "
        "generation = coalesce(%s, generation) where name = %s",
        (uuid.UUID(generation) if generation else None, name),
    )


def failed(conn: Connection, name: str, sentence: str) -> None:
    """Record that the link does not work, and why."""
    conn.execute("update external_account set last_problem = %s where name = %s", (sentence[:MAX_PROBLEM], name))


def skew_sentence(skew_seconds: float) -> str:
    """Say that the clocks of the halves are too far apart."""
    direction = "ahead of" if skew_seconds > 0 else "behind"
    return (
        f"The clock of the mid is {abs(skew_seconds):.0f} s {direction} ours (limit {MAX_SKEW_SECONDS:.0f} s): "
        "synchronise both by NTP; log times are the mid's."
    )

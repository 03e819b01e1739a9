"""From a name and a password to a session.

Order of events: the try is counted as failed (memory, then the operator's row, committed); the password is hashed, also
where there is no such operator, so both take the same time; where it is right, one transaction takes the count back,
renews an outdated hash and makes the session, unless the operator was disabled or got another password meanwhile. What is
answered is the same whatever was wrong. Nothing is written for a name that nobody has.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from midsource.model.clock import Clock
from midsource.model.errors import UserError
from midsource.security import audit, operators, sessions
from midsource.security.passwords import Hashing, checked, normal
from midsource.security.roles import SYSTEM, Visitor
from midsource.security.throttle import FREE_TRIES, NAME_SECONDS, Throttle, TooManyTries, wait_after
from midsource.store.database import Connection, Database

MAX_NAME = 63
"""Characters of an operator's name."""


class WrongPassword(UserError):
    """The password that should have proved an operator is not theirs."""

    code = "MS-136"


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """What a log-in gives: the session, and the language its operator chose once ('' for none)."""

    name: str
    session: sessions.Started
    language: str


@dataclass(frozen=True, slots=True)
class _Known:
    id: int
    password_hash: str
    is_disabled: bool


class LogIn:
    """Logs operators of one instance in; safe to use from several threads."""

    def __init__(self, database: Database, clock: Clock, hashing: Hashing) -> None:
        self._database = database
        self._clock = clock
        self._hashing = hashing
        self._throttle = Throttle()

    def log_in(self, name: str, password: str, address: str, *, ending: str = "") -> LoggedIn:
        """Return a new session; the one of the cookie ``ending`` ends. Raises WrongPassword, TooManyTries."""
        name = name.strip()[:MAX_NAME]
        known = self._proved(name, password, address)
        if known is not None:
            renewed = self._renewed(known.password_hash, password)
            with self._database.transaction() as conn:
                found = _open(conn, known, renewed, self._clock.now(), name)
                sessions.end(conn, ending)
            if found is not None:
                self._throttle.succeeded(name, address)
                return found
        raise WrongPassword("name or password is wrong", "type both again; an administrator can set a new password")

    def change_password(self, visitor: Visitor, password: str, new: str, address: str, *, but: str) -> None:
        """Change the visitor's own password; the present one proves them. Other sessions than the cookie ``but`` end.

        Raises UserError for the new one, WrongPassword for the present one, TooManyTries.
        """
        chosen = checked(new, visitor.name)
        if self._proved(visitor.name, password, address) is None:
            raise WrongPassword("the present password is wrong", "type it again; an administrator can set a new one")
        hashed = self._hashing.hash(chosen)
        with self._database.transaction() as conn:
            operators.set_password(conn, visitor, visitor.name, hashed, but=but)
        self._throttle.succeeded(visitor.name, address)

    def _proved(self, name: str, password: str, address: str) -> _Known | None:
        """Count a try, then tell whether it was right; both take the same time whatever the name."""
        self._throttle.take(name, address, self._clock.boot_seconds())
        known = self._counted(name, address)
        right = self._hashing.verify(known.password_hash if known else None, password)
        return known if known is not None and right and not known.is_disabled else None

    def _counted(self, name: str, address: str) -> _Known | None:
        """Count the try in the operator's row. Raises TooManyTries where the row says to wait."""
        now = self._clock.now()
        with self._database.transaction() as conn:
            # A count that a crash forgets is one try; waiting for the disk would tell who exists.
            conn.execute("set local synchronous_commit = off")
            row = conn.execute(
                "select id, password_hash, disabled_at is not null, failures, not_before from operator where name = %s for update",
                (name.replace("\0", ""),),
            ).fetchone()
            if row is None:
                return None
            number, stored, is_disabled, failures, not_before = row
            if not_before is not None and not_before > now:
                raise TooManyTries("too many log-ins failed", max(1, round((not_before - now).total_seconds())))
            wait = timedelta(seconds=wait_after(failures + 1, NAME_SECONDS))
            conn.execute(
                "update operator set failures = least(failures + 1, 1000000), not_before = %s where id = %s",
                (now + wait if wait else None, number),
            )
            if failures == FREE_TRIES:
                audit.record(conn, SYSTEM, "operator.slowed", name, failures=failures + 1, client=address)
        return _Known(number, stored, is_disabled)

    def _renewed(self, stored: str, password: str) -> str:
        """Return the hash to store: another where today's parameters are others."""
        return self._hashing.hash(normal(password)) if self._hashing.is_outdated(stored) else stored


def _open(conn: Connection, known: _Known, renewed: str, now: datetime, name: str) -> LoggedIn | None:
    row = conn.execute(
        "update operator set failures = 0, not_before = null, password_hash = %s "
        "where id = %s and password_hash = %s and disabled_at is null returning language",
        (renewed, known.id, known.password_hash),
    ).fetchone()
    if row is None:
        return None
    audit.record(conn, Visitor(name, frozenset(), "console"), "operator.log_in", name)
    return LoggedIn(name, sessions.start(conn, known.id, now), row[0])

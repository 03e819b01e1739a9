"""The schema of an instance's database: bring it to this version's, tell whether it is, make partitions ahead.

Every process checks at its start; only who migrates loads what runs the revisions (``upgrading``).
"""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path

from midsource.model.errors import ConfigError, Unhealthy
from midsource.model.ids import Month
from midsource.store.database import Connection, Database, scalar

ROLES = ("marketing", "mid")
MIGRATIONS = Path(__file__).parent / "migrations"
PARENTS = {"marketing": ("broad_log",), "mid": ("message", "outcome")}
"""The partitioned tables of each role."""
MONTHS_AHEAD = 2
DAYS_AHEAD = 3
"""Partitions made ahead at migration and by the tick leader: a process that never restarts still finds tomorrow's."""


def upgrade(database: Database, role: str) -> None:
    """Migrate ``database`` to the newest schema of ``role``.

    Raises Unhealthy if the schema is newer than this version, ConfigError if it is of the other role; nothing is run then.
    """
    # Alembic and SQLAlchemy cost a process 20 MB and 0.3 s at its start: web and mta only check, and do without.
    from midsource.store import upgrading  # noqa: PLC0415 - as said

    revisions(role)
    with database.connection() as conn:
        _refuse_other_role(conn, role)
    upgrading.upgrade(database, role)


def revisions(role: str) -> list[str]:
    """Return the revisions of ``role`` that this version knows, oldest first. Raises ConfigError for an unknown role."""
    if role not in ROLES:
        raise ConfigError([f"role: expected one of {', '.join(ROLES)}, got {role!r}"])
    return sorted(script.name.partition("_")[0] for script in (MIGRATIONS / role / "versions").glob("[0-9]*.py"))


def check(database: Database, role: str, name: str = "") -> None:
    """Raise Unhealthy unless the schema is exactly this version's, ConfigError if it is that of another instance.

    ``name`` is the instance's; '' leaves open whose database it is.
    """
    known = revisions(role)
    head = known[-1]
    with database.connection() as conn:
        _refuse_other_role(conn, role, name)
        found = scalar(conn, "select to_regclass('alembic_version')")
        current = scalar(conn, "select version_num from alembic_version") if found else None
        owner = conn.execute("select name, role from instance").fetchone() if current == head else None
    if current and current not in known:
        raise newer(database.name, current)
    if current != head:
        raise Unhealthy(
            f"the database of {database.name} has schema {current or 'none'}, this version needs {head}",
            "run `midsource migrate`" if current else "run `midsource init`",
        )
    if name and owner and tuple(owner) != (name, role):
        raise _foreign(owner[0], owner[1], name, role)


def describe_instance(conn: Connection, name: str, role: str) -> uuid.UUID:
    """Record who this database belongs to, once; return its generation. Raises ConfigError if it is another's."""
    conn.execute(
        "insert into instance (name, role, generation) values (%s, %s, %s) on conflict do nothing",
        (name, role, uuid.uuid4()),
    )
    row = conn.execute("select name, role, generation from instance").fetchone()
    assert row is not None
    if (row[0], row[1]) != (name, role):
        raise _foreign(row[0], row[1], name, role)
    generation: uuid.UUID = row[2]
    return generation


def ensure_partitions(conn: Connection, role: str, now: datetime) -> None:
    """Make the partitions of this month and the next ones (and days, on a mid) where they are missing; no reader or writer waits.

    On a connection without a transaction each is durable by itself. Raises LockNotAvailable where the parent is being changed
    for more than two seconds.
    """
    month = Month.of(now)
    parents = ("broad_log",) if role == "marketing" else ("message",)
    for _ in range(MONTHS_AHEAD + 1):
        for parent in parents:
            conn.execute("select ensure_month(%s, %s)", (parent, int(str(month))))
        month = month.next()
    if role == "mid":
        for ahead in range(DAYS_AHEAD + 1):
            conn.execute("select ensure_day('outcome', (%s at time zone 'UTC')::date + %s)", (now, ahead))


def newer(name: str, schema: str) -> Unhealthy:
    """Return the refusal of a database that a newer version has migrated."""
    return Unhealthy(
        f"the database of {name} has schema {schema}, which is newer than this version of midsource",
        "install the newer version again; nothing was changed",
    )


def _refuse_other_role(conn: Connection, role: str, name: str = "") -> None:
    """Raise ConfigError for a database of the other role: its revisions have the same numbers and other contents."""
    if scalar(conn, "select to_regclass('instance')") is None:
        return
    owner = conn.execute("select name, role from instance").fetchone()
    if owner is not None and owner[1] != role:
        raise _foreign(owner[0], owner[1], name or role, role)


def _foreign(owner: str, owner_role: str, name: str, role: str) -> ConfigError:
    return ConfigError([f"this database belongs to the {owner_role} instance {owner!r}, not to the {role} {name!r}"])

"""Bring an instance's database to the schema of this version, and refuse a newer one.

One advisory lock serialises migrators on all machines; each revision is one transaction; `lock_timeout` is 2 s with
retries, so a migration never queues behind a long reader while senders queue behind it (design 12).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from midsource.model.errors import ConfigError, Unhealthy
from midsource.model.ids import Month
from midsource.store.database import Connection, Database, said_plainly, scalar

ROLES = ("marketing", "mid")
LOCK_TRIES = 30
"""With 2 s of lock time-out each: a migration waits at most a minute for its tables."""
MIGRATOR_SECONDS = 120
"""How long a migrator waits for another one: twice what that one may wait for its tables."""
MIGRATION_LOCK = 0x6D69647372630001
"""Advisory lock key: 'midsrc' and a number; one migrator at a time."""
MONTHS_AHEAD = 2
DAYS_AHEAD = 3
"""Partitions made ahead at migration and by the tick leader: a process that never restarts still finds tomorrow's."""


def upgrade(database: Database, role: str) -> None:
    """Migrate ``database`` to the newest schema of ``role``. Raises Unhealthy if the schema is newer than this version."""
    script = _config(role)
    with said_plainly(database.name), _of_the_driver():
        engine = sa.create_engine(_sqlalchemy_url(database.dsn), poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"set lock_timeout = '{MIGRATOR_SECONDS}s'")
            connection.exec_driver_sql(f"select pg_advisory_lock({MIGRATION_LOCK})")
            connection.exec_driver_sql("set lock_timeout = '2s'")
            connection.commit()
            try:
                _refuse_newer(connection, script, database.name)
                connection.commit()  # a revision that builds an index concurrently must find no transaction begun
                script.attributes["connection"] = connection
                _with_lock_retries(connection, script)
            finally:
                connection.rollback()
                connection.exec_driver_sql(f"select pg_advisory_unlock({MIGRATION_LOCK})")
                connection.commit()
        engine.dispose()


def check(database: Database, role: str, name: str = "") -> None:
    """Raise Unhealthy unless the schema is exactly this version's, ConfigError if it is that of another instance.

    ``name`` is the instance's; '' leaves open whose database it is.
    """
    script = ScriptDirectory.from_config(_config(role))
    head = script.get_current_head()
    with database.connection() as conn:
        found = scalar(conn, "select to_regclass('alembic_version')")
        current = scalar(conn, "select version_num from alembic_version") if found else None
        owner = conn.execute("select name, role from instance").fetchone() if current == head else None
    if current and current not in {revision.revision for revision in script.walk_revisions()}:
        raise _newer(database.name, current)
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
    """Make the partitions of this month and the next ones (and days, on a mid) where they are missing."""
    month = Month.of(now)
    parents = ("broad_log",) if role == "marketing" else ("message",)
    for _ in range(MONTHS_AHEAD + 1):
        for parent in parents:
            conn.execute("select ensure_month(%s, %s)", (parent, int(str(month))))
        month = month.next()
    if role == "mid":
        for ahead in range(DAYS_AHEAD + 1):
            conn.execute("select ensure_day('outcome', (%s at time zone 'UTC')::date + %s)", (now, ahead))


def _config(role: str) -> Config:
    if role not in ROLES:
        raise ConfigError([f"role: expected one of {', '.join(ROLES)}, got {role!r}"])
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations" / role))
    config.set_main_option("path_separator", "os")
    return config


def _sqlalchemy_url(dsn: str) -> str:
    return dsn.replace("postgresql://", "postgresql+psycopg://", 1)


@contextmanager
def _of_the_driver() -> Iterator[None]:
    """Raise what the driver raised, not its wrapping, so that it is said plainly like everywhere else."""
    try:
        yield
    except sa.exc.DBAPIError as exc:
        raise exc.orig or exc from exc


def _newer(name: str, schema: str) -> Unhealthy:
    return Unhealthy(
        f"the database of {name} has schema {schema}, which is newer than this version of midsource",
        "install the newer version again; nothing was changed",
    )


def _foreign(owner: str, owner_role: str, name: str, role: str) -> ConfigError:
    return ConfigError([f"this database belongs to the {owner_role} instance {owner!r}, not to the {role} {name!r}"])


def _refuse_newer(connection: sa.Connection, script: Config, name: str) -> None:
    if connection.exec_driver_sql("select to_regclass('alembic_version')").scalar() is None:
        return
    current = connection.exec_driver_sql("select version_num from alembic_version").scalar()
    known = {revision.revision for revision in ScriptDirectory.from_config(script).walk_revisions()}
    if current and current not in known:
        raise _newer(name, current)


def _with_lock_retries(connection: sa.Connection, script: Config) -> None:
    for attempt in range(1, LOCK_TRIES + 1):
        try:
            command.upgrade(script, "head")
            connection.commit()
        except sa.exc.OperationalError as exc:
            connection.rollback()
            if attempt == LOCK_TRIES or "lock timeout" not in str(exc):
                raise exc.orig or exc from exc
        else:
            return

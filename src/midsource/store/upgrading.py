"""Run the revisions that a database lacks.

One advisory lock serialises migrators on all machines; each revision is one transaction; `lock_timeout` is 2 s with
retries, so a migration never queues behind a long reader while senders queue behind it (design 12).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from midsource.model.errors import Conflict
from midsource.store.database import Database, said_plainly
from midsource.store.migrate import MIGRATIONS, newer, revisions

LOCK_TRIES = 30
"""With 2 s of lock time-out each: a migration waits at most a minute for its tables."""
MIGRATOR_SECONDS = 120
"""How long a migrator waits for another one: twice what that one may wait for its tables."""
TURN_SECONDS = 0.1
MIGRATION_LOCK = 0x6D69647372630001
"""Advisory lock key: 'midsrc' and a number; one migrator at a time."""


def upgrade(database: Database, role: str) -> None:
    """Migrate ``database`` to the newest schema of ``role``. Raises Unhealthy if the schema is newer than this version."""
    script = _config(role)
    with said_plainly(database.name), _of_the_driver():
        engine = sa.create_engine(_sqlalchemy_url(database.dsn), poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql("set lock_timeout = '2s'")
            _take_turn(connection, database.name)
            try:
                _refuse_newer(connection, role, database.name)
                connection.commit()  # a revision that builds an index concurrently must find no transaction begun
                script.attributes["connection"] = connection
                _with_lock_retries(connection, script)
            finally:
                connection.rollback()
                connection.exec_driver_sql(f"select pg_advisory_unlock({MIGRATION_LOCK})")
                connection.commit()
        engine.dispose()


def _take_turn(connection: sa.Connection, name: str) -> None:
    """Take the migrators' lock. Raises Conflict where another keeps it too long.

    Asked for again and again, not waited for: whoever waits holds a snapshot, and an index that is made concurrently waits
    for every snapshot.
    """
    deadline = time.monotonic() + MIGRATOR_SECONDS
    while not connection.exec_driver_sql(f"select pg_try_advisory_lock({MIGRATION_LOCK})").scalar():
        connection.commit()
        if time.monotonic() > deadline:
            raise Conflict(f"another migration of {name} runs for more than {MIGRATOR_SECONDS} s", "wait for it")
        time.sleep(TURN_SECONDS)
    connection.commit()


def _config(role: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS / role))
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


def _refuse_newer(connection: sa.Connection, role: str, name: str) -> None:
    if connection.exec_driver_sql("select to_regclass('alembic_version')").scalar() is None:
        return
    current = connection.exec_driver_sql("select version_num from alembic_version").scalar()
    if current and current not in revisions(role):
        raise newer(name, current)


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

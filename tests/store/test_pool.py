"""The pool of an instance when its server was away: it serves again at once, however long that was."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql

from midsource.model.errors import Unhealthy
from midsource.store.database import GROW_SECONDS, REGROW_SECONDS, Database

AWAY_SECONDS = 8.0
BACK_SECONDS = GROW_SECONDS + REGROW_SECONDS + 2.0


@contextmanager
def away(dsn: str) -> Iterator[None]:
    """Let the server take no connection of this database, and end those there are."""
    name = str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])
    allow = sql.SQL("alter database {} with allow_connections {}")
    with psycopg.connect(psycopg.conninfo.make_conninfo(dsn, dbname="postgres"), autocommit=True) as conn:
        conn.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and backend_type = 'client backend'",
            (name,),
        )
        try:
            yield
        finally:
            conn.execute(allow.format(sql.Identifier(name), sql.SQL("true")))


@pytest.mark.slow
def test_whoever_waited_while_the_server_was_away_is_served_as_soon_as_it_is_back(
    make_database: Callable[..., str],
) -> None:
    dsn = make_database()
    with Database("marketing", dsn, application="pool", max_connections=6) as database:
        warm(database, 6)
        served: list[float] = []
        waiting = [threading.Thread(target=ask, args=(database, served)) for _ in range(6)]
        with away(dsn):
            for thread in waiting:
                thread.start()
            time.sleep(AWAY_SECONDS)
            assert not served
        back = time.monotonic()
        for thread in waiting:
            thread.join(60)
        assert len(served) == 6
        assert max(served) - back < BACK_SECONDS
        assert database.pool_figures()["failures"] == 0


def test_a_server_that_stays_away_is_said_after_the_time_one_waits(make_database: Callable[..., str]) -> None:
    dsn = make_database()
    with Database("marketing", dsn, application="pool", max_connections=2, wait_seconds=2.5) as database:
        warm(database, 2)
        with away(dsn):
            for _ in range(2):  # those that were broken are found out, each once
                with pytest.raises(Unhealthy), database.connection() as conn:
                    conn.execute("select 1")
            began = time.monotonic()
            with pytest.raises(Unhealthy, match="not currently accepting connections"), database.connection() as conn:
                conn.execute("select 1")
            assert 2.0 < time.monotonic() - began < 6.0
        assert database.pool_figures()["failures"] >= 1


def warm(database: Database, count: int) -> None:
    """Let the pool have so many connections."""
    barrier = threading.Barrier(count)

    def use() -> None:
        with database.connection() as conn:
            conn.execute("select 1")
            barrier.wait(20)

    threads = [threading.Thread(target=use) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)


def ask(database: Database, served: list[float]) -> None:
    """Ask until there is an answer, as a worker does, and note when."""
    while True:
        try:
            with database.connection() as conn:
                conn.execute("select 1")
        except Unhealthy:
            continue
        served.append(time.monotonic())
        return

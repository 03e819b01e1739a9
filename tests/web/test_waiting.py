"""Those who wait on a feed are woken whatever happens beside them, and the look that wakes them outlives what fails in it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from anyio import CapacityLimiter
from structlog.testing import capture_logs

from midsource.model.errors import Unhealthy
from midsource.store.database import Connection, Database
from midsource.web import waiting
from midsource.web.waiting import FeedWaiters


class Failing(Database):
    """A database whose first connections are refused with ``failures``, one each."""

    failures: tuple[Exception, ...] = ()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        if self.failures:
            failure, *rest = self.failures
            self.failures = tuple(rest)
            raise failure
        with super().connection() as conn:
            yield conn


@pytest.fixture
def database(make_database: Callable[..., str], migrated_mid: str) -> Iterator[Failing]:
    opened = Failing("mid1", make_database(migrated_mid), application="tests", max_connections=2)
    with opened:
        with opened.transaction() as conn:
            conn.execute("insert into account (name, key_id, key_hash) values ('default', 'k', '')")
        yield opened


@asynccontextmanager
async def looking(database: Database) -> AsyncIterator[FeedWaiters]:
    """Run the look as the web process does."""
    waiters = FeedWaiters(database, CapacityLimiter(2))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(waiters.run())
        yield waiters
        task.cancel()


def write(database: Database) -> None:
    with database.transaction() as conn:
        conn.execute("insert into feed_batch (account_id, day, rows, deliveries) values (1, current_date, 0, '{}')")


class Counted(int):
    """The id of an account that lets the event loop go on whenever another thread looks at it."""

    def __hash__(self) -> int:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.01)
        return super().__hash__()


def test_readers_that_come_and_go_during_a_look_disturb_nothing(database: Failing) -> None:
    """The look runs in a thread, and must not walk the set that the event loop changes."""

    async def scene() -> None:
        async with looking(database) as waiters, asyncio.TaskGroup() as readers:
            for account in range(1, 60):
                readers.create_task(waiters.news(Counted(account), 0, 0.5))
                await asyncio.sleep(0.01)

    with capture_logs() as said:
        asyncio.run(scene())
    assert said == []


@pytest.mark.parametrize("failure", [RuntimeError("a bug"), Unhealthy("the database is away", "wait")])
def test_a_look_that_fails_is_logged_and_the_next_one_wakes(
    database: Failing, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "FAILED_SECONDS", 0.05)
    write(database)
    database.failures = (failure, failure)

    async def scene() -> None:
        async with looking(database) as waiters, asyncio.timeout(5):
            await waiters.news(1, 0, 60)

    with capture_logs() as said:
        asyncio.run(scene())
    assert len(said) == 2

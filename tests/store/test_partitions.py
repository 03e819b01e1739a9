"""Partitions go without anybody waiting; what was cut half-way is gone on with, and what came into use again stays."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from midsource.model.errors import Conflict
from midsource.store import migrate, partitions
from midsource.store.cleanup import Scene
from midsource.store.database import Connection, Database, scalar
from midsource.store.partitions import Partition

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def mid(database: Callable[[], str]) -> Iterator[Database]:
    with Database("mid", database(), application="tests", max_connections=6) as opened:
        migrate.upgrade(opened, "mid")
        with opened.transaction() as conn:
            migrate.ensure_partitions(conn, "mid", NOW)
            conn.execute("select ensure_month('message', 202601)")
            conn.execute(
                "insert into message (account_id, delivery_id, id, email, domain, data) "
                "select 1, 202601::bigint << 32 | 1, n, 'a', 'b', '{}' from generate_series(1, 100) n"
            )
        yield opened


def oldest(mid: Database, parent: str = "message") -> Partition:
    with mid.connection() as conn:
        return partitions.listing(conn, parent)[0]


def names(mid: Database) -> list[str]:
    with mid.connection() as conn:
        return [found.name for found in partitions.listing(conn, "message")]


def always(_conn: Connection) -> bool:
    return True


def test_partitions_are_listed_with_their_bounds(mid: Database) -> None:
    found = oldest(mid)
    assert (found.name, found.low, found.high) == ("message_202601", 202601 << 32, 202602 << 32)
    assert found.ends_at == date(2026, 2, 1)
    assert not found.pending
    assert not found.detached
    day = oldest(mid, "outcome")
    assert (day.low, day.high, day.ends_at) == (date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 2))


def test_one_that_is_over_goes_whole(mid: Database) -> None:
    assert partitions.drop(mid, oldest(mid), always)
    assert names(mid)[0] == "message_202603"
    with mid.connection() as conn:
        assert scalar(conn, "select count(*) from message") == 0


def test_one_that_came_into_use_again_is_attached_again_with_its_rows(mid: Database) -> None:
    assert not partitions.drop(mid, oldest(mid), lambda _conn: False)
    assert not oldest(mid).detached
    with mid.connection() as conn:
        assert scalar(conn, "select count(*) from message") == 100


def test_one_that_was_detached_and_not_dropped_is_gone_on_with(mid: Database) -> None:
    with mid.connection() as conn:
        conn.execute("alter table message detach partition message_202601")
    assert oldest(mid).detached
    assert not partitions.drop(mid, oldest(mid), lambda _conn: False)
    assert not oldest(mid).detached
    with mid.connection() as conn:
        conn.execute("alter table message detach partition message_202601")
    assert partitions.drop(mid, oldest(mid), always)
    assert "message_202601" not in names(mid)


def begin_to_detach(mid: Database) -> None:
    """Cut a detaching half-way, as a kill -9 does: it waits for a reader when its time is over."""
    with psycopg.connect(mid.dsn) as reader, psycopg.connect(mid.dsn, autocommit=True) as cut:
        reader.execute("select count(*) from message")
        cut.execute("set lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            cut.execute("alter table message detach partition message_202601 concurrently")
    assert oldest(mid).pending


@pytest.mark.parametrize("how", ["pending", "detached"])
def test_what_a_cut_drop_left_is_attached_again_where_no_cleanup_runs(mid: Database, how: str) -> None:
    begin_to_detach(mid)
    if how == "detached":
        with mid.connection() as conn:
            conn.execute("alter table message detach partition message_202601 finalize")
    assert partitions.attach_left(mid, "message") == ["message_202601"]
    assert not oldest(mid).is_left
    with mid.connection() as conn:
        assert scalar(conn, "select count(*) from message") == 100
    assert partitions.attach_left(mid, "message") == []
    assert partitions.drop(mid, oldest(mid), always), "and it can be dropped when it is over"


def test_what_a_drop_is_about_to_end_is_left_to_it(mid: Database) -> None:
    found = []

    def look(_conn: Connection) -> bool:
        found.append((oldest(mid).detached, partitions.attach_left(mid, "message")))
        return True

    assert partitions.drop(mid, oldest(mid), look)
    assert found == [(True, [])]


@pytest.mark.parametrize("how", ["pending", "detached"])
@pytest.mark.parametrize("over", [True, False])
def test_cleanup_goes_on_first_with_what_a_cut_drop_left_over_or_not(mid: Database, how: str, over: bool) -> None:
    begin_to_detach(mid)
    if how == "detached":
        with mid.connection() as conn:
            conn.execute("alter table message detach partition message_202601 finalize")
    scene = Scene(mid, Path(), "mid", NOW, timedelta(days=1))
    removed = partitions.drop_next(scene, "message", lambda _conn, one: over and one.name == "message_202601")
    with mid.connection() as conn:
        assert scalar(conn, "select count(*) from message") == (0 if over else 100)
    assert ("message_202601" in names(mid)) is not over
    assert any("is attached again" in line for line in removed.said) is not over
    assert not oldest(mid).is_left


def test_nobody_waits_for_a_drop_that_waits_for_a_long_reader(mid: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "LOCK_SECONDS", 1)
    monkeypatch.setattr(partitions, "LOCK_TRIES", 2)
    failures: list[Exception] = []

    def drop() -> None:
        try:
            partitions.drop(mid, oldest(mid), always)
        except Exception as exc:  # noqa: BLE001 - looked at below
            failures.append(exc)

    with psycopg.connect(mid.dsn) as reader:
        reader.execute("select count(*) from message")  # its transaction stays open
        thread = threading.Thread(target=drop)
        thread.start()
        slowest, writes = 0.0, 0
        while thread.is_alive():
            began = time.monotonic()
            with mid.transaction() as conn:
                conn.execute(
                    "insert into message (account_id, delivery_id, id, email, domain, data) "
                    "values (1, 202603::bigint << 32 | 1, %s, 'a', 'b', '{}')",
                    (writes,),
                )
                conn.execute("select count(*) from message")
            slowest, writes = max(slowest, time.monotonic() - began), writes + 1
        thread.join()
        assert [type(exc) for exc in failures] == [Conflict]
    assert writes > 10
    assert slowest < 0.9, "somebody waited for the lock that the drop waits for"
    assert oldest(mid).pending, "its detaching is begun: the next drop ends it"
    assert partitions.drop(mid, oldest(mid), always)
    assert "message_202601" not in names(mid)

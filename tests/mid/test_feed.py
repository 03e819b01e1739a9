"""The feed loses no row whatever the order of commits, serves bounded pages, and its times are safe positions."""

from __future__ import annotations

import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from midsource.mid import feed, ledger
from midsource.mid.cursor import Cursor, Gone
from midsource.mid.feed import Ask, Page
from midsource.mid.ledger import OutcomeRecord
from midsource.model.errors import UserError
from midsource.model.message import MessageEvent
from midsource.store.database import Database, StatementTimeout, scalar
from midsource.testing.mid import MidDatabase
from midsource.wire.schema import DeliveryRow, LogRow


def record(mid: MidDatabase, delivery: int, *ids: int, event: MessageEvent = MessageEvent.ACCEPTED) -> None:
    now = mid.clock.now()
    with mid.database.transaction() as conn:
        ledger.record_outcomes(
            conn, mid.account_id, [OutcomeRecord(delivery, n, event, now, reply="250 ok") for n in ids], now
        )


def read(mid: MidDatabase, ask: Ask) -> Page:
    return feed.read_page(mid.database, mid.account_id, ask, mid.clock.now())


def logs(page: Page) -> list[LogRow]:
    return [msgspec.json.decode(line, type=LogRow) for line in page.lines.splitlines()]


def read_all(mid: MidDatabase, limit: int, after: str = "") -> tuple[list[LogRow], Page]:
    rows: list[LogRow] = []
    for _ in range(10_000):
        page = read(mid, Ask("logs", after, limit=limit))
        rows += logs(page)
        assert page.head.rows == len(logs(page)) <= limit
        if not page.head.more:
            return rows, page
        assert page.head.cursor != after, "a page that says more moves on"
        after = page.head.cursor
    raise AssertionError("the feed has no end")


@pytest.mark.parametrize("limit", [1, 3, 7, 20_000])
def test_pages_of_any_size_give_every_row_once_in_order(mid_db: MidDatabase, limit: int) -> None:
    delivery = mid_db.delivery(messages=20)
    record(mid_db, delivery, *range(1, 9))
    record(mid_db, delivery, 1)  # evidence: not part of the feed
    record(mid_db, delivery, *range(9, 14))
    record(mid_db, delivery, 14)
    rows, page = read_all(mid_db, limit)
    assert [row.id for row in rows] == list(range(1, 15))
    assert rows[0] == LogRow(
        delivery=delivery,
        id=1,
        state=1,
        reason=0,
        attempts=1,
        revision=2,
        event_at=(mid_db.clock.now() - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1),
        reply="250 ok",
        message_id="",
    )
    assert read(mid_db, Ask("logs", page.head.cursor)).head.rows == 0


def test_a_page_is_bounded_in_bytes(mid_db: MidDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = mid_db.delivery(messages=6_000)
    record(mid_db, delivery, *range(1, 6_001))
    monkeypatch.setattr(feed, "MAX_PAGE_BYTES", 250_000)
    page = read(mid_db, Ask("logs"))
    assert 0 < len(page.lines) <= 250_000
    assert page.head.more
    rows, _ = read_all(mid_db, 20_000)
    assert [row.id for row in rows] == list(range(1, 6_001))


def test_a_page_that_times_out_is_halved(mid_db: MidDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = mid_db.delivery(messages=400)
    record(mid_db, delivery, *range(1, 401))
    with mid_db.database.connection() as conn:  # 1 ms a row: 400 rows do not fit into 0.2 s, 100 do
        conn.execute("alter table outcome rename to outcome_kept")
        conn.execute(
            "create view outcome as select o.* from outcome_kept o, lateral (select pg_sleep(0.001 + o.row * 0)) s (x)"
        )
    monkeypatch.setattr(feed, "PAGE_SECONDS", 0.2)
    page = read(mid_db, Ask("logs"))
    assert 0 < page.head.rows < 400
    assert page.head.more
    monkeypatch.setattr(feed, "PAGE_SECONDS", 0.02)
    with pytest.raises(StatementTimeout):
        read(mid_db, Ask("logs"))


def test_the_deliveries_feed_tells_each_delivery_once_as_it_is_now(mid_db: MidDatabase) -> None:
    first, second = mid_db.delivery(1, messages=3), mid_db.delivery(2, messages=2)
    page = read(mid_db, Ask("deliveries"))
    rows = [msgspec.json.decode(line, type=DeliveryRow) for line in page.lines.splitlines()]
    assert [(row.id, row.state, row.figures) for row in rows] == [(first, 55, {"6": 3}), (second, 55, {"6": 2})]
    record(mid_db, second, 1)
    record(mid_db, second, 2)
    page = read(mid_db, Ask("deliveries", page.head.cursor))
    rows = [msgspec.json.decode(line, type=DeliveryRow) for line in page.lines.splitlines()]
    assert [(row.id, row.figures) for row in rows] == [(second, {"1": 2})]
    assert not page.head.more


def test_each_account_sees_its_own_rows_only(mid_db: MidDatabase) -> None:
    record(mid_db, mid_db.delivery(messages=1), 1)
    other = feed.read_page(mid_db.database, mid_db.account_id + 1, Ask("logs"), mid_db.clock.now())
    assert (other.head.rows, other.head.more, other.head.head_seq) == (0, False, 0)
    assert feed.read_page(mid_db.database, mid_db.account_id + 1, Ask("deliveries"), mid_db.clock.now()).lines == b""


def test_times_never_go_back_when_the_clock_does(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=3)
    record(mid_db, delivery, 1)
    start = mid_db.clock.now()
    reached = [read(mid_db, Ask("logs")).head.reached_at]
    for step in (timedelta(minutes=10), timedelta(minutes=-30), timedelta(minutes=5)):
        mid_db.clock.advance(step)
        record(mid_db, delivery, 2)
        reached.append(read(mid_db, Ask("logs")).head.reached_at)
    assert reached == sorted(reached)
    with mid_db.database.connection() as conn:
        times = [at for (at,) in conn.execute("select sequenced_at from feed_batch order by seq")]
    assert times == sorted(times)
    assert times[-1] == start + timedelta(minutes=10)


def test_a_time_shown_is_a_position_that_skips_nothing(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=6)
    for n in range(1, 6):
        record(mid_db, delivery, n)
        page = read(mid_db, Ask("logs"))
        if n == 3:
            shown = page.head.reached_at
            record(mid_db, delivery, 6)  # committed at the very time shown, after the page
            read(mid_db, Ask("logs"))
        mid_db.clock.advance(timedelta(minutes=1))
    again = logs(read(mid_db, Ask("logs", since=shown)))
    assert [row.id for row in again] == [3, 6, 4, 5]
    assert logs(read(mid_db, Ask("logs", since=mid_db.clock.now()))) == []
    assert len(logs(read(mid_db, Ask("logs", since=shown - timedelta(days=3000))))) == 6


def test_an_idle_look_moves_the_time_and_not_the_cursor(mid_db: MidDatabase) -> None:
    record(mid_db, mid_db.delivery(messages=1), 1)
    first = read(mid_db, Ask("logs"))
    mid_db.clock.advance(timedelta(hours=3))
    second = read(mid_db, Ask("logs", first.head.cursor))
    assert second.head.cursor == first.head.cursor
    assert second.head.reached_at == mid_db.clock.now()
    assert (second.head.seq, second.head.head_seq) == (2, 2)


def test_a_cursor_of_another_database_or_of_the_future_is_refused(mid_db: MidDatabase) -> None:
    record(mid_db, mid_db.delivery(messages=1), 1)
    cursor = read(mid_db, Ask("logs")).cursor
    for wrong in (Cursor(uuid.uuid4(), 1), Cursor(cursor.generation, cursor.seq + 1)):
        with pytest.raises(Gone) as caught:
            read(mid_db, Ask("logs", str(wrong)))
        assert caught.value.rewound.generation == str(cursor.generation)
        assert (caught.value.rewound.head_seq, caught.value.rewound.oldest_seq) == (2, 1)


@pytest.mark.parametrize("text", ["x", "!!!!", "A" * 38, "é", "a" * 5_000])
def test_what_is_no_cursor_is_the_callers_fault(mid_db: MidDatabase, text: str) -> None:
    with pytest.raises((UserError, Gone)):
        read(mid_db, Ask("logs", text))


def test_acknowledgement_counts_whole_batches_and_never_goes_back(mid_db: MidDatabase) -> None:
    generation = uuid.uuid4()
    seen = []
    for cursor in (Cursor(generation, 7), Cursor(generation, 9, 3), Cursor(generation, 2)):
        feed.acknowledge(mid_db.database, mid_db.account_id, "logs", cursor, mid_db.clock.now())
        with mid_db.database.connection() as conn:
            seen.append(scalar(conn, "select seq from feed_ack where stream = 'logs'"))
    assert seen == [7, 8, 8]


def test_a_slow_transaction_delays_its_own_batch_and_no_other(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=3)
    now = mid_db.clock.now()
    with mid_db.database.transaction() as slow:
        ledger.record_outcomes(slow, mid_db.account_id, [OutcomeRecord(delivery, 1, MessageEvent.ACCEPTED, now)], now)
        record(mid_db, delivery, 2)
        page = read(mid_db, Ask("logs"))
        assert [row.id for row in logs(page)] == [2]
    assert [row.id for row in logs(read(mid_db, Ask("logs", page.head.cursor)))] == [1]


def test_a_reader_that_misses_the_lock_serves_what_is_numbered(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=2)
    record(mid_db, delivery, 1)
    read(mid_db, Ask("logs"))
    record(mid_db, delivery, 2)
    with mid_db.database.transaction() as other:
        other.execute("select pg_advisory_xact_lock(%s)", (feed._TURN_LOCK,))
        page = read(mid_db, Ask("logs"))
        assert [row.id for row in logs(page)] == [1]
        assert page.head.more
    assert [row.id for row in logs(read(mid_db, Ask("logs", page.head.cursor)))] == [2]


WRITERS, BATCHES, ROWS = 6, 40, 25


def _write(database: Database, mid: MidDatabase, delivery: int) -> set[tuple[int, int]]:
    """Record batches with delays, some rolled back; return the keys that were committed."""
    chance = random.Random(delivery)
    written: set[tuple[int, int]] = set()
    for first in range(1, BATCHES * ROWS, ROWS):
        ids, given_up = range(first, first + ROWS), chance.random() < 0.2
        records = [OutcomeRecord(delivery, n, MessageEvent.ACCEPTED, mid.clock.now()) for n in ids]
        with database.connection() as conn, conn.transaction(force_rollback=given_up):
            ledger.record_outcomes(conn, mid.account_id, records, mid.clock.now())
            time.sleep(chance.choice([0, 0, 0.005, 0.03]))
        written.update(() if given_up else ((delivery, n) for n in ids))
    return written


def _follow(database: Database, mid: MidDatabase, limit: int, done: threading.Event) -> tuple[list[LogRow], list[int]]:
    """Read page after page until the end that comes after the last write."""
    found: list[LogRow] = []
    seqs: list[int] = []
    after, more = "", True
    while more:
        more = not done.is_set()
        page = feed.read_page(database, mid.account_id, Ask("logs", after, limit=limit), mid.clock.now())
        found += logs(page)
        seqs.append(page.head.seq)
        after, more = page.head.cursor, more or page.head.more
    return found, seqs


def test_writers_that_commit_in_any_order_lose_no_row(mid_db: MidDatabase) -> None:
    """Six writers with delays and rollbacks, three readers meanwhile: nothing missing, nothing out of order."""
    deliveries = [mid_db.delivery(n, messages=BATCHES * ROWS) for n in range(1, WRITERS + 1)]
    done = threading.Event()
    with (
        Database("mid1", mid_db.database.dsn, application="tests", max_connections=10) as database,
        ThreadPoolExecutor(WRITERS + 3) as pool,
    ):
        readers = [pool.submit(_follow, database, mid_db, limit, done) for limit in (10, 60, 20_000)]
        try:
            written = set().union(*pool.map(lambda delivery: _write(database, mid_db, delivery), deliveries))
        finally:
            done.set()
        seen = [reader.result() for reader in readers]
    assert 0 < len(written) < WRITERS * BATCHES * ROWS
    for rows, seqs in seen:
        keys = [(row.delivery, row.id) for row in rows]
        assert len(keys) == len(set(keys))
        assert set(keys) == written
        assert seqs == sorted(seqs)

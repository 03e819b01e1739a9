"""Pages of a delivery log by number, state, reason and address; and the samples its rate is measured by."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb

from midsource.marketing import log_search, pages, samples
from midsource.marketing.log_search import LogPage, Wanted
from midsource.model.message import MessageState
from midsource.store.database import Database, scalar
from midsource.wire.schema import DeliveryRow

DELIVERY = (202603 << 32) + 1
PEOPLE = 3_000
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def log(ready_db: Database) -> Database:
    """Give a log of 3 000 people: the first 2 000 sent, then 900 pending, 99 deferred, and one uncertain as the last."""
    with ready_db.transaction() as conn:
        conn.execute(
            "insert into delivery (id, label, state, brand, account, subject, html, text, from_name, from_address, "
            "validity_seconds, retry_count, retry_period_seconds, uncertain_policy) "
            "values (%s, 'l', 55, (select name from brand limit 1), 'mid1', '', '', '', '', '', 3600, 1, 60, 'hold')",
            (DELIVERY,),
        )
        conn.execute(
            "insert into recipient (key, email, email_key, domain) select n, a, a, 'x.example' from ("
            "select n, 'p' || lpad(n::text, 4, '0') || '@x.example' as a from generate_series(1, %s) n) x",
            (PEOPLE,),
        )
        conn.execute(
            "insert into broad_log (delivery_id, id, recipient_id, email, domain, state, reason, event_at) "
            "select %s, row_number() over (order by id), id, email, domain, case when id <= 2000 then 1 when id <= 2900 then 6 "
            "when id < 3000 then 61 else 62 end, case when id between 2901 and 2910 then 5 else 0 end, now() from recipient",
            (DELIVERY,),
        )
        conn.execute(
            "insert into broad_log_total select delivery_id, domain, state, reason, count(*) from broad_log group by 1, 2, 3, 4"
        )
    return ready_db


def found(log: Database, wanted: Wanted) -> Iterator[LogPage]:
    """Yield the page asked for and those that follow."""
    while True:
        with log.connection() as conn:
            page = log_search.page(conn, DELIVERY, PEOPLE, wanted)
        yield page
        if not page.more:
            return
        wanted = Wanted(page.seen, wanted.state, wanted.reason, wanted.address)


def numbers(log: Database, wanted: Wanted) -> list[int]:
    return [row.id for page in found(log, wanted) for row in page.rows]


def test_every_row_comes_once_in_order(log: Database) -> None:
    pages_ = list(found(log, Wanted()))
    assert [row.id for page in pages_ for row in page.rows] == list(range(1, PEOPLE + 1))
    assert [len(page.rows) for page in pages_] == [50] * 60


@pytest.mark.parametrize("window", [100, 100_000])
@pytest.mark.parametrize("near", [100, 20_000])
def test_a_state_is_found_wherever_it_stands_however_rare(
    log: Database, monkeypatch: pytest.MonkeyPatch, window: int, near: int
) -> None:
    monkeypatch.setattr(log_search, "WINDOW_ROWS", window)
    monkeypatch.setattr(log_search, "NEAR_ROWS", near)
    monkeypatch.setattr(log_search, "SCANNED_ROWS", 700)
    assert numbers(log, Wanted(state=MessageState.SENT)) == list(range(1, 2_001))
    assert numbers(log, Wanted(state=MessageState.DEFERRED)) == list(range(2_901, 3_000))
    assert numbers(log, Wanted(state=MessageState.UNCERTAIN)) == [3_000]
    assert numbers(log, Wanted(state=MessageState.DEFERRED, reason=5)) == list(range(2_901, 2_911))
    assert numbers(log, Wanted(reason=5)) == list(range(2_901, 2_911))


def test_what_is_rare_costs_one_page(log: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_search, "NEAR_ROWS", 100)
    with log.connection() as conn:
        page = log_search.page(conn, DELIVERY, PEOPLE, Wanted(state=MessageState.UNCERTAIN))
        none = log_search.page(conn, DELIVERY, PEOPLE, Wanted(state=MessageState.FAILED))
    assert ([row.id for row in page.rows], page.more) == ([3_000], False)
    assert (none.rows, none.more) == ([], False)


def test_a_page_that_found_nothing_near_says_how_far_it_looked(log: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("NEAR_ROWS", 100), ("WINDOW_ROWS", 200), ("SCANNED_ROWS", 700)):
        monkeypatch.setattr(log_search, name, value)
    with log.connection() as conn:
        page = log_search.page(conn, DELIVERY, PEOPLE, Wanted(state=MessageState.UNCERTAIN))
    assert (page.rows, page.seen, page.more) == ([], 700, True)


@pytest.mark.parametrize(("typed", "first", "n"), [("p00", 1, 99), (" P29", 2_900, 100), ("p0007@X.example", 7, 1), ("p0007@x.ex", 7, 1)])  # fmt: skip
def test_an_address_is_found_by_its_beginning(log: Database, typed: str, first: int, n: int) -> None:
    assert numbers(log, Wanted(address=typed)) == list(range(first, first + n))


def test_an_address_and_a_state(log: Database) -> None:
    assert numbers(log, Wanted(address="p29", state=MessageState.PENDING)) == [2_900]
    assert numbers(log, Wanted(address="p29", reason=5)) == list(range(2_901, 2_911))


def test_people_who_are_not_in_the_delivery_are_passed_in_bounded_steps(
    log: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_search, "PEOPLE_AT_ONCE", 10)
    monkeypatch.setattr(log_search, "PEOPLE_A_PAGE", 40)
    with log.transaction() as conn:
        conn.execute("delete from broad_log where id <= 95")
    followed = list(found(log, Wanted(address="p00")))
    assert [len(page.rows) for page in followed] == [0, 0, 4]


@pytest.mark.parametrize("typed", ["q", "%", "p00_", "\\", "' or 1=1 --", "é" * 400, "\U0010ffff", "@x.example"])
def test_what_nobody_has_is_not_found(log: Database, typed: str) -> None:
    assert numbers(log, Wanted(address=typed)) == []


def told(log: Database, at: datetime, sent: int, state: int = 55, revision: int = 1) -> None:
    """Let the mid tell how far the delivery is."""
    row = DeliveryRow(id=DELIVERY, state=state, revision=revision, figures={"1": sent, "6": PEOPLE - sent})
    with log.transaction() as conn:
        pages.take_deliveries(conn, "mid1", [row], at)
        samples.keep(conn, "mid1", [DELIVERY])


def kept(log: Database) -> list[int]:
    with log.connection() as conn:
        return [row[0] for row in conn.execute("select done from delivery_sample order by at").fetchall()]


def test_samples_are_some_seconds_apart_and_give_the_rate_of_the_last_minute(log: Database) -> None:
    for second in range(121):
        told(log, NOW + timedelta(seconds=second), second * 10, revision=second + 1)
    assert kept(log) == list(range(0, 1_201, 50))
    with log.connection() as conn:
        earlier = samples.earlier(conn, [DELIVERY])[DELIVERY]
    assert (earlier.at, earlier.done) == (NOW + timedelta(seconds=60), 600)


def test_samples_are_bounded_in_time_and_gone_at_the_end(log: Database) -> None:
    for minute in range(40):
        told(log, NOW + timedelta(minutes=minute), minute, revision=minute + 1)
    assert kept(log) == list(range(24, 40))
    told(log, NOW + timedelta(minutes=40), 40, state=75, revision=41)
    assert kept(log) == list(range(25, 40)), "a paused delivery gets none"
    told(log, NOW + timedelta(minutes=41), 3_000, state=95, revision=42)
    assert kept(log) == []


def test_samples_of_a_foreign_delivery_are_not_taken(log: Database) -> None:
    with log.transaction() as conn:
        conn.execute("update delivery set figures = %s, figures_at = %s", (Jsonb({"sent": 5}), NOW))
        samples.keep(conn, "other", [DELIVERY])
        assert scalar(conn, "select count(*) from delivery_sample") == 0

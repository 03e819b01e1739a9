"""Years of deliveries in both halves, written set by set, and fetched by the workflows as any others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from midsource.bench.lab import history
from midsource.bench.lab.history import History
from midsource.marketing import accounts, brands, options
from midsource.model.errors import Conflict, UserError
from midsource.policy.position import parse
from midsource.store.database import scalar
from midsource.testing.link import LinkedHalves, linked, templates
from midsource.workflows import delivery_counters, delivery_logs

SINCE = datetime(2024, 11, 1, tzinfo=UTC)
SMALL = History(deliveries=40, rows=10_000, since=SINCE)


@pytest.fixture(scope="module")
def link_templates(make_database: Callable[..., str]) -> tuple[str, str]:
    return templates(make_database)


@pytest.fixture
def halves(
    make_database: Callable[..., str], link_templates: tuple[str, str], tmp_path: Path
) -> Iterator[LinkedHalves]:
    with linked(make_database, link_templates, tmp_path) as both:
        with both.marketing.transaction() as conn:
            links = {"unsubscribe_url": "https://x.test/{token}", "mirror_url": "https://x.test/m/{token}"}
            brands.ensure_defaults(conn, from_name="Shop", from_address="news@shop.test", **links)
        yield both


def written(halves: LinkedHalves, told: History = SMALL) -> int:
    now = halves.clock.now()
    return history.make(halves.marketing, halves.mid, accounts.DEFAULT_NAME, halves.mid_account, told, now)


def test_both_halves_hold_the_same_years_and_the_pointers_stand_at_their_beginning(halves: LinkedHalves) -> None:
    assert written(halves) == 10_000
    for database, table, state in ((halves.marketing, "broad_log", 6), (halves.mid, "message", 1)):
        with database.connection() as conn:
            assert scalar(conn, f"select count(*) from {table} where state = {state}") == 10_000
            assert scalar(conn, "select count(*) from delivery") == 40
    with halves.mid.connection() as conn:
        assert scalar(conn, "select count(*) from outcome") == 10_000
        backwards = "select count(*) from (select sequenced_at < lag(sequenced_at) over (order by seq) as b from feed_batch) f where b"
        assert scalar(conn, backwards) == 0, "time never goes back along the feed"
        assert scalar(conn, "select max(rows) from feed_batch") <= history.BATCH_ROWS
    with halves.marketing.connection() as conn:
        found = options.get_value(conn, f"NmsMidSourcing_LastBroadLog_{accounts.DEFAULT_NAME}")
    assert parse(found) == SINCE


def test_the_workflows_fetch_them_to_the_last_row(halves: LinkedHalves) -> None:
    written(halves)
    halves.run(delivery_logs.run_once)
    halves.run(delivery_counters.run_once)
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select count(*) from broad_log where state = 1 and revision = 2") == 10_000
        assert scalar(conn, "select count(*) from delivery where figures = '{\"sent\": 250}'") == 40
        found = options.get_value(conn, f"NmsMidSourcing_LastBroadLog_{accounts.DEFAULT_NAME}")
    assert parse(found) > halves.clock.now() - timedelta(minutes=1)


def test_history_cannot_be_written_behind_what_was_sent(halves: LinkedHalves) -> None:
    written(halves)
    with pytest.raises(Conflict, match="make a new home for the lab"):
        written(halves)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (History(0, 10), "give 1 to 20000"),
        (History(10, 5), "at least one each"),
        (History(10, 10, since=datetime(2199, 1, 1, tzinfo=UTC)), "a date months ago"),
    ],
)
def test_bounds_are_refused_before_anything_is_written(halves: LinkedHalves, told: History, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        written(halves, told)
    with halves.mid.connection() as conn:
        assert scalar(conn, "select count(*) from delivery") == 0

"""A mid that keeps results no longer than it says, and a marketing instance that comes too late: counted, named, gone on."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from tests.workflows.cleanup_scene import ago, clean, of_mid, old_delivery, results

from midsource.marketing import accounts, handover, losses, options, pointers
from midsource.mid import feed, orders
from midsource.mid.cursor import Cursor, Forgotten
from midsource.mid.feed import Ask
from midsource.net.clock import SystemClock
from midsource.store.database import scalar
from midsource.testing.link import LinkedHalves
from midsource.workflows import cleanup, delivery_counters, delivery_logs

LOGS = f"NmsMidSourcing_LastBroadLog_{accounts.DEFAULT_NAME}"


class Later(SystemClock):
    """A clock so many days ahead: the marketing instance was away for so long."""

    def __init__(self, days: int) -> None:
        self._ahead = timedelta(days=days)

    def now(self) -> datetime:
        return super().now() + self._ahead


@pytest.fixture
def late(halves: LinkedHalves) -> tuple[LinkedHalves, int, int]:
    """Give halves whose marketing side never pulled; a delivery of 300 of whom 200 were sent, and another that is all here."""
    numbers = []
    for serial in (1, 2):
        number = halves.prepared(300, serial=serial)
        halves.run(handover.hand_over, number)
        orders.command(halves.mid, halves.mid_account, number, "start", halves.clock.now())
        halves.sent(number, range(1, 201))
        numbers.append(number)
    with halves.marketing.transaction() as conn:
        conn.execute("update delivery set started_at = created_at, state = 62")
        conn.execute("update broad_log_total set state = 1 where delivery_id = %s", (numbers[1],))
    halves.clock = Later(61)
    while (
        cleanup.run_once(replace(halves.context(), database=halves.mid, instance="mid")).more_after_seconds is not None
    ):
        pass
    with halves.mid.connection() as conn:
        assert scalar(conn, "select count(*) from feed_gone") == 1
    return halves, numbers[0], numbers[1]


def test_the_pointer_goes_on_where_results_are_kept_and_what_may_be_lost_is_counted(
    late: tuple[LinkedHalves, int, int],
) -> None:
    halves, number, complete = late
    delivery_logs.run_once(halves.context())
    assert halves.lines("the mid keeps no results from before")
    assert halves.lines("1 deliveries with 200 messages from before are open here")
    with halves.marketing.connection() as conn:
        found = losses.open_losses(conn)
        assert [(loss.stream, loss.delivery_id, loss.rows) for loss in found] == [("logs", number, 200)]
        assert complete not in {loss.delivery_id for loss in found}
        # The hundred that waited were ended by the mid when validity was over: those results are new, came first, and are here.
        assert scalar(conn, "select count(*) from broad_log where delivery_id = %s and state = 7", (number,)) == 100
        assert scalar(conn, "select count(*) from broad_log where delivery_id = %s and state = 6", (number,)) == 200
        reached = options.get_value(conn, LOGS)
        cursor = scalar(conn, "select cursor from pointer where stream = 'logs' and lane = 'backlog'")
    assert reached > f"{SystemClock().now():%Y-%m-%d}"
    said = len(halves.lines("the mid keeps no results"))
    delivery_logs.run_once(halves.context())
    assert len(halves.lines("the mid keeps no results")) == said, "told once"
    assert cursor


def test_what_was_uncertain_may_have_got_its_outcome_in_what_is_gone(late: tuple[LinkedHalves, int, int]) -> None:
    halves, number, complete = late
    with halves.marketing.transaction() as conn:
        conn.execute(
            "update broad_log_total set state = 62 where delivery_id = %s and domain = 'sapo.example'", (complete,)
        )
        open_ = scalar(conn, "select sum(n) from broad_log_total where delivery_id = %s and state = 62", (complete,))
    delivery_logs.run_once(halves.context())
    with halves.marketing.connection() as conn:
        found = {loss.delivery_id: loss.rows for loss in losses.open_losses(conn)}
    assert found.keys() == {number, complete}
    assert found[complete] == open_ > 0


def test_counters_that_are_gone_are_counted_too(late: tuple[LinkedHalves, int, int]) -> None:
    halves, number, complete = late
    delivery_counters.run_once(halves.context())
    with halves.marketing.connection() as conn:
        assert {loss.delivery_id for loss in losses.open_losses(conn)} == {number, complete}


def test_an_option_set_before_what_is_kept_moves_to_it(late: tuple[LinkedHalves, int, int]) -> None:
    halves, _, _ = late
    delivery_logs.run_once(halves.context())
    with halves.marketing.transaction() as conn:
        conn.execute("delete from broad_log_total where state = 6")
        pointers.move(conn, accounts.DEFAULT_NAME, "logs", SystemClock().now() - timedelta(days=400))
    halves.journal.clear()
    delivery_logs.run_once(halves.context())
    assert halves.lines("nothing from before is open here")


def test_a_cursor_and_a_time_from_before_what_is_kept_are_told_apart_from_others(
    late: tuple[LinkedHalves, int, int],
) -> None:
    halves, _, _ = late
    now = halves.clock.now()
    with halves.mid.connection() as conn:
        generation = scalar(conn, "select generation from instance")
        seq, before = conn.execute("select seq, gone_before from feed_gone").fetchone()  # type: ignore[misc]
    for ask in (
        Ask("logs", after=str(Cursor(generation, seq - 1))),
        Ask("logs", after=str(Cursor(generation, seq, 3))),
        Ask("logs", since=before),
        Ask("deliveries", since=before - timedelta(days=900)),
    ):
        with pytest.raises(Forgotten) as caught:
            feed.read_page(halves.mid, halves.mid_account, ask, now)
        assert (caught.value.gone.seq, caught.value.gone.gone_before) == (seq, before)
    for ask in (Ask("logs", after=str(Cursor(generation, seq))), Ask("logs")):
        assert feed.read_page(halves.mid, halves.mid_account, ask, now).head.rows == 200


def pull(halves: LinkedHalves, times: int) -> None:
    for _ in range(times):
        delivery_logs.run_once(halves.context())
        delivery_counters.run_once(halves.context())


@pytest.fixture
def pulled(halves: LinkedHalves) -> LinkedHalves:
    """Give halves whose mid forgot every result after both streams had it; a delivery of then is not over here."""
    old_delivery(halves, 30, state=62, message_state=62)
    results(halves, 20)
    pull(halves, times=2)  # the second time gives the cursor of the first back
    clean(of_mid(halves))
    with halves.mid.connection() as conn:
        assert scalar(conn, "select count(*) from feed_batch") == 0
        assert scalar(conn, "select count(*) from feed_gone") == 1
    return halves


def test_a_pull_by_time_where_all_is_forgotten_begins_behind_it(pulled: LinkedHalves) -> None:
    """It began at zero, before what is forgotten, and the next page was refused: so the mid named losses that are none."""
    now = pulled.clock.now()
    for stream in ("logs", "deliveries"):
        head = feed.read_page(pulled.mid, pulled.mid_account, Ask(stream, since=ago(2)), now).head
        assert (head.rows, head.more) == (0, False)
        assert feed.read_page(pulled.mid, pulled.mid_account, Ask(stream, after=head.cursor), now).head.rows == 0


def test_nothing_is_lost_of_what_was_pulled_before_it_was_forgotten(pulled: LinkedHalves) -> None:
    pulled.clock = Later(3)  # the last 48 hours come first, by time
    pull(pulled, times=3)
    assert pulled.lines("more than 48 h behind")
    assert not pulled.lines("the mid keeps no results from before")
    with pulled.marketing.connection() as conn:
        assert losses.open_losses(conn) == []
        assert conn.execute("select distinct lane from pointer").fetchall() == [("backlog",)], "the lanes have met"


def test_of_a_restored_mid_nothing_is_lost_that_was_pulled_before(pulled: LinkedHalves) -> None:
    with pulled.mid.transaction() as conn:
        conn.execute("update instance set generation = gen_random_uuid()")
    pull(pulled, times=1)
    assert len(pulled.lines("the mid was restored or cloned")) == 2
    assert pulled.lines("what it had from before was pulled")
    with pulled.marketing.connection() as conn:
        assert losses.open_losses(conn) == []


def test_of_a_restored_mid_what_was_not_pulled_may_be_lost(pulled: LinkedHalves) -> None:
    with pulled.marketing.transaction() as conn:
        for stream in ("logs", "deliveries"):
            pointers.move(conn, accounts.DEFAULT_NAME, stream, ago(25))
        conn.execute("update pointer set cursor = %s where lane = 'backlog'", (str(Cursor(uuid4(), 0)),))
    pull(pulled, times=1)
    assert len(pulled.lines("the mid was restored or cloned")) == 2
    with pulled.marketing.connection() as conn:
        assert {loss.stream for loss in losses.open_losses(conn)} == {"logs", "deliveries"}

"""The next page is fetched while one is written; the mid is told only of what is durable here."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from midsource.engine.work import Context, Report
from midsource.marketing import handover, sync
from midsource.marketing.read_ahead import ReadAhead
from midsource.mid.cleanup_feed import oldest_unpulled
from midsource.net.clock import SystemClock
from midsource.store.database import scalar
from midsource.testing.link import LinkedHalves
from midsource.wire.schema import Rewound


def logs(context: Context) -> Report:
    return sync.pull(context, "logs")


class Feed:
    """A mid's feed that can be held up; keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.go = threading.Event()

    def __call__(self, **wanted: Any) -> Rewound:
        self.asked.append(wanted)
        assert self.go.wait(10)
        if wanted["after"] == "broken":
            raise ConnectionError("cut")
        return Rewound(generation=wanted["after"], head_seq=1, oldest_seq=1)


def test_a_page_ahead_is_handed_out_once_and_only_for_its_cursor() -> None:
    feed = Feed()
    with ReadAhead(feed, SystemClock()) as ahead:
        ahead.begin("c1", 100, held="c0")
        ahead.begin("c9", 100, held="c0")  # one page ahead is the most
        assert ahead.take("c2") is None, "another lane's turn"
        feed.go.set()
        asked = ahead.take("c1")
        assert asked is not None
        assert isinstance(asked.answer, Rewound)
        assert asked.answer.generation == "c1"
        assert ahead.take("c1") is None
    assert feed.asked == [{"after": "c1", "since": None, "limit": 100, "held": "c0"}]


def test_what_the_call_raised_is_raised_where_the_page_is_wanted() -> None:
    feed = Feed()
    feed.go.set()
    with ReadAhead(feed, SystemClock()) as ahead:
        ahead.begin("broken", 100, held="")
        with pytest.raises(ConnectionError):
            ahead.take("broken")


def test_a_page_nobody_wants_any_more_makes_room_for_another() -> None:
    feed = Feed()
    feed.go.set()
    with ReadAhead(feed, SystemClock()) as ahead:
        ahead.begin("c1", 100, held="")
        taken = None
        while taken is None:
            ahead.begin("c5", 100, held="")
            taken = ahead.take("c5")
    assert [wanted["after"] for wanted in feed.asked] == ["c1", "c5"]


def test_the_mid_is_never_told_of_more_than_is_written_here(halves: LinkedHalves) -> None:
    """Retention goes by what was acknowledged: a page that is only on its way must not count."""
    number = halves.prepared(3000, part_rows=1000)
    halves.run(handover.hand_over, number)
    for first in range(1, 3001, 100):
        halves.sent(number, range(first, first + 100))
    with halves.marketing.connection() as conn:
        conn.execute("update pointer set page_rows = 300, page_ceiling = 300 where stream = 'logs'")
    seen: list[tuple[int, int]] = []

    def look() -> None:
        with halves.mid.connection() as there, halves.marketing.connection() as here:
            told = scalar(there, "select coalesce(max(seq), 0) from feed_ack where stream = 'logs'")
            seen.append((told, scalar(here, "select min(seq) from pointer where stream = 'logs' and lane = 'backlog'")))

    halves.beat = look
    halves.run(logs)
    assert len(seen) >= 8, "several pages"
    assert all(told <= written for told, written in seen)
    assert max(told for told, _ in seen) > 0
    assert halves.same_on_both_sides(number)


def test_what_came_after_a_page_was_asked_for_ahead_is_still_read(halves: LinkedHalves) -> None:
    """The delivery ends between the two: its log stood still until the next hour, met after a kill on a busy machine."""
    number = halves.prepared(1000, part_rows=1000)
    halves.run(handover.hand_over, number)
    for first in range(1, 601, 100):
        halves.sent(number, range(first, first + 100))
    with halves.marketing.connection() as conn:
        conn.execute("update pointer set page_rows = 300, page_ceiling = 300 where stream = 'logs'")
    came = threading.Event()

    def last_results_come() -> None:
        """As the second page is about to be taken: the mid answered it while the first was written."""
        with halves.marketing.connection() as conn:
            written = scalar(conn, "select count(*) from broad_log where delivery_id = %s and state = 1", (number,))
        if written == 300 and not came.is_set():
            threading.Event().wait(0.5)  # the call that was begun with the first page ends within milliseconds
            for first in range(601, 1001, 100):
                halves.sent(number, range(first, first + 100))
            came.set()

    halves.beat = last_results_come
    halves.run(lambda context: sync.pull(context, "logs"))
    assert came.is_set()
    assert halves.same_on_both_sides(number)


def test_what_only_the_recent_lane_has_read_is_kept_at_the_mid(halves: LinkedHalves) -> None:
    """After weeks away the last 48 hours come first: the mid must not forget the days before, which nobody has read."""
    number = halves.prepared(3000, part_rows=1000)
    halves.run(handover.hand_over, number)
    halves.run(logs)
    for first in range(1, 1001, 100):
        halves.sent(number, range(first, first + 100))
    old = (halves.clock.now() - timedelta(days=30)).date()
    with halves.mid.transaction() as conn:
        conn.execute("select setval('feed_seq', 1000)")
        conn.execute("select ensure_day('outcome', %s)", (old,))
        conn.execute("update feed_batch set seq = 100 + id, sequenced_at = %s, day = %s where seq is null", (old, old))
        conn.execute("update outcome set day = %s", (old,))
    for first in range(1001, 3001, 100):
        halves.sent(number, range(first, first + 100))
    with halves.marketing.transaction() as conn:
        conn.execute("update pointer set reached_at = reached_at - interval '31 days'")
        conn.execute("alter table pointer alter page_rows set default 300, alter page_ceiling set default 300")
        conn.execute("update pointer set page_rows = 300, page_ceiling = 300 where stream = 'logs'")
    held: list[bool] = []

    def look() -> None:
        with halves.mid.connection() as there, halves.marketing.connection() as here:
            told = scalar(there, "select coalesce(max(seq), 0) from feed_ack where stream = 'logs'")
            lanes = dict(here.execute("select lane, seq from pointer where stream = 'logs'").fetchall())
            assert told <= lanes["backlog"], "the backlog lane has not read so far"
            if lanes["backlog"] < 1000 < lanes.get("recent", 0):
                held.append(old in oldest_unpulled(there).values())

    halves.beat = look
    halves.run(logs)
    assert len(held) >= 3, "several pages of the recent lane"
    assert all(held)
    assert halves.same_on_both_sides(number)
    halves.run(logs)
    with halves.mid.connection() as there:
        told = scalar(there, "select seq from feed_ack where stream = 'logs'")
        assert told == scalar(there, "select max(seq) from feed_batch"), "once both lanes have met"

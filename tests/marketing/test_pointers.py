"""Pointers and their options over a real database: two lanes, hand-written values, races."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from midsource.marketing import accounts, pointers
from midsource.marketing.pointers import Lane, MovedByHand
from midsource.model.errors import NotFound
from midsource.policy.position import show
from midsource.store.database import Database, scalar
from midsource.testing.clock import ManualClock
from midsource.wire.schema import FeedHead

ACCOUNT = accounts.DEFAULT_NAME
OPTION = f"NmsMidSourcing_LastBroadLog_{ACCOUNT}"
GENERATION = str(uuid4())


@pytest.fixture
def journal() -> list[str]:
    return []


@pytest.fixture
def account(marketing_db: Database, clock: ManualClock, tmp_path: Path) -> str:
    with marketing_db.transaction() as conn:
        accounts.add(conn, tmp_path, url="http://127.0.0.1:1", key="abc." + "s" * 43, now=clock.now())
        conn.execute("update external_account set created_at = %s", (clock.now(),))
        conn.execute("delete from pointer")
        conn.execute("delete from option")
    return ACCOUNT


def open_lanes(db: Database, clock: ManualClock, journal: list[str]) -> pointers.Lanes:
    with db.transaction() as conn:
        return pointers.open_lanes(conn, ACCOUNT, "logs", clock.now(), lambda _level, line: journal.append(line))


def head(clock: ManualClock, seq: int, reached: datetime, *, more: bool = True) -> FeedHead:
    return FeedHead(
        generation=GENERATION,
        cursor=f"c{seq}",
        rows=1,
        more=more,
        reached_at=reached,
        now=clock.now(),
        seq=seq,
        head_seq=1000,
    )


def advance(db: Database, lane: Lane, page: FeedHead) -> Lane:
    with db.transaction() as conn:
        moved = pointers.advance(conn, lane, page)
        assert moved is not None
        return moved


def option(db: Database) -> str:
    with db.connection() as conn:
        return str(scalar(conn, "select value from option where name = %s", (OPTION,)))


def write(db: Database, value: str) -> None:
    with db.connection() as conn:
        conn.execute("update option set value = %s where name = %s", (value, OPTION))


def test_a_missing_pointer_is_made_before_the_oldest_result(
    marketing_db: Database, clock: ManualClock, journal: list[str], account: str
) -> None:
    lanes = open_lanes(marketing_db, clock, journal)
    assert lanes.backlog.reached_at == clock.now() - pointers.MARGIN
    assert option(marketing_db) == show(lanes.backlog.reached_at)
    assert "was missing" in journal[0]


def test_a_new_account_has_its_options_at_once(marketing_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    with marketing_db.transaction() as conn:
        accounts.add(conn, tmp_path, url="http://127.0.0.1:1", key="abc." + "s" * 43, name="other", now=clock.now())
        names = [row[0] for row in conn.execute("select name from option order by name")]
    assert names == ["NmsMidSourcing_LastBroadLog_other", "NmsMidSourcing_LastDelivery_other"]


def test_an_option_of_2020_opens_a_lane_for_the_last_48_hours(
    marketing_db: Database, clock: ManualClock, journal: list[str], account: str
) -> None:
    open_lanes(marketing_db, clock, journal)
    write(marketing_db, "2020-01-01T00:00:00+00:00")
    lanes = open_lanes(marketing_db, clock, journal)
    assert lanes.backlog.reached_at == datetime(2020, 1, 1, tzinfo=UTC)
    assert lanes.recent is not None
    assert lanes.recent.reached_at == clock.now() - timedelta(hours=48)


def test_lanes_meet_where_the_recent_one_began(
    marketing_db: Database, clock: ManualClock, journal: list[str], account: str
) -> None:
    open_lanes(marketing_db, clock, journal)
    write(marketing_db, "2020-01-01")
    lanes = open_lanes(marketing_db, clock, journal)
    assert lanes.recent
    recent = advance(marketing_db, lanes.recent, head(clock, 900, clock.now() - timedelta(hours=1)))
    recent = advance(marketing_db, recent, head(clock, 950, clock.now()))
    assert (recent.start_seq, recent.seq) == (900, 950)
    backlog = advance(marketing_db, lanes.backlog, head(clock, 899, clock.now() - timedelta(hours=2)))
    with marketing_db.transaction() as conn:
        apart = pointers.merge(conn, pointers.Lanes(backlog, recent), lambda *_: None)
    assert apart.recent is not None
    backlog = advance(marketing_db, backlog, head(clock, 900, clock.now() - timedelta(hours=1)))
    with marketing_db.transaction() as conn:
        met = pointers.merge(conn, pointers.Lanes(backlog, recent), lambda *_: None)
    assert met.recent is None
    assert (met.backlog.seq, met.backlog.cursor) == (950, "c950")
    assert option(marketing_db) == show(clock.now())


def test_lanes_do_not_meet_while_the_recent_one_is_behind_a_jump(
    marketing_db: Database, clock: ManualClock, journal: list[str], account: str
) -> None:
    open_lanes(marketing_db, clock, journal)
    write(marketing_db, "2020-01-01")
    lanes = open_lanes(marketing_db, clock, journal)
    assert lanes.recent
    recent = advance(marketing_db, lanes.recent, head(clock, 900, clock.now()))
    backlog = advance(marketing_db, lanes.backlog, head(clock, 990, clock.now()))
    with marketing_db.transaction() as conn:
        lanes = pointers.merge(conn, pointers.Lanes(backlog, recent), lambda *_: None)
    assert lanes.backlog.seq == 990  # never backwards by itself


def test_an_option_changed_by_plain_sql_while_a_page_was_on_its_way_wins(
    marketing_db: Database, clock: ManualClock, journal: list[str], account: str
) -> None:
    lanes = open_lanes(marketing_db, clock, journal)
    write(marketing_db, "2025-01-01T00:00:00Z")
    with marketing_db.transaction() as conn:
        assert pointers.advance(conn, lanes.backlog, head(clock, 5, clock.now())) is None
        conn.execute("rollback; begin")
    assert option(marketing_db) == "2025-01-01T00:00:00Z"
    assert open_lanes(marketing_db, clock, journal).backlog.reached_at == datetime(2025, 1, 1, tzinfo=UTC)


def test_a_pointer_moved_while_a_page_was_on_its_way_wins(
    marketing_db: Database, clock: ManualClock, journal: list[str], account: str
) -> None:
    lanes = open_lanes(marketing_db, clock, journal)
    advance(marketing_db, lanes.backlog, head(clock, 5, clock.now()))
    with marketing_db.transaction() as conn:
        assert pointers.advance(conn, lanes.backlog, head(clock, 4, clock.now())) is None


def test_a_lost_race_while_meeting_is_told(
    marketing_db: Database, clock: ManualClock, journal: list[str], account: str
) -> None:
    open_lanes(marketing_db, clock, journal)
    write(marketing_db, "2020-01-01")
    lanes = open_lanes(marketing_db, clock, journal)
    assert lanes.recent
    recent = advance(marketing_db, lanes.recent, head(clock, 900, clock.now()))
    backlog = advance(marketing_db, lanes.backlog, head(clock, 900, clock.now()))
    write(marketing_db, "2021-01-01")
    with pytest.raises(MovedByHand), marketing_db.transaction() as conn:
        pointers.merge(conn, pointers.Lanes(backlog, recent), lambda *_: None)


@pytest.mark.parametrize("broken", ["", "soon", "31.12.2025", "2026-02-30T00:00Z"])
def test_an_unreadable_value_written_into_the_table_is_replaced_and_said(
    marketing_db: Database, clock: ManualClock, journal: list[str], account: str, broken: str
) -> None:
    before = open_lanes(marketing_db, clock, journal).backlog
    write(marketing_db, broken)
    after = open_lanes(marketing_db, clock, journal).backlog
    assert after.reached_at == before.reached_at
    assert option(marketing_db) == before.shown
    assert "is not a time" in journal[-1]


def test_a_value_in_the_future_is_clamped_to_now_and_said(
    marketing_db: Database, clock: ManualClock, journal: list[str], account: str
) -> None:
    open_lanes(marketing_db, clock, journal)
    write(marketing_db, "2031-01-01T00:00:00Z")
    assert open_lanes(marketing_db, clock, journal).backlog.reached_at == clock.now()
    assert any("future" in line for line in journal)
    assert any("skips" in line for line in journal)


def test_a_deleted_option_is_shown_again(
    marketing_db: Database, clock: ManualClock, journal: list[str], account: str
) -> None:
    shown = open_lanes(marketing_db, clock, journal).backlog.shown
    with marketing_db.connection() as conn:
        conn.execute("delete from option")
    assert open_lanes(marketing_db, clock, journal).backlog.shown == shown
    assert option(marketing_db) == shown


def test_the_page_window_survives(marketing_db: Database, clock: ManualClock, journal: list[str], account: str) -> None:
    lane = open_lanes(marketing_db, clock, journal).backlog
    with marketing_db.transaction() as conn:
        pointers.keep_window(conn, lane, lane.window.after_failure())
    assert open_lanes(marketing_db, clock, journal).backlog.window.rows == 2500


def test_an_unknown_account_is_named(marketing_db: Database, clock: ManualClock) -> None:
    with pytest.raises(NotFound, match="nobody"), marketing_db.transaction() as conn:
        pointers.open_lanes(conn, "nobody", "logs", clock.now(), lambda *_: None)

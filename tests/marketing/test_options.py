from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from midsource.marketing import accounts, options, standing
from midsource.model.errors import NotFound, UserError
from midsource.policy.position import show
from midsource.store.database import Database, scalar
from midsource.testing.clock import ManualClock

POINTER = f"NmsMidSourcing_LastDelivery_{accounts.DEFAULT_NAME}"


@pytest.fixture
def db(marketing_db: Database, clock: ManualClock, tmp_path: Path) -> Database:
    with marketing_db.transaction() as conn:
        accounts.add(conn, tmp_path, url="http://127.0.0.1:1", key="abc." + "s" * 43, now=clock.now())
    return marketing_db


def put(db: Database, name: str, value: str, clock: ManualClock, *, yes: bool = False) -> str:
    with db.transaction() as conn:
        return options.set_value(conn, name, value, by="alice", now=clock.now(), yes=yes)


def test_every_option_is_listed_with_its_default_and_pointers_once_an_account(db: Database) -> None:
    with db.connection() as conn:
        views = {view.name: view for view in options.list_options(conn)}
    assert views["NmsMidSourcing_PrepareFlow"].value == "3"
    assert views[POINTER].value
    assert not any("<" in name for name in views)


def test_a_value_is_kept_and_its_default_needs_no_row(db: Database, clock: ManualClock) -> None:
    put(db, "NmsMidSourcing_PrepareFlow", "5", clock)
    with db.connection() as conn:
        assert options.integer(conn, "NmsMidSourcing_PrepareFlow") == 5
    put(db, "NmsMidSourcing_PrepareFlow", "3", clock)
    with db.connection() as conn:
        assert scalar(conn, "select count(*) from option where name = 'NmsMidSourcing_PrepareFlow'") == 0


def test_a_change_leaves_who_old_and_new(db: Database, clock: ManualClock) -> None:
    put(db, "NmsMidSourcing_PrepareFlow", "5", clock)
    with db.connection() as conn:
        line = scalar(conn, "select line from workflow_journal order by id desc limit 1")
    assert line == "NmsMidSourcing_PrepareFlow set from '3' to '5' by alice"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("NmsEmail_RetryPeriod", "3600", "no unit"),
        ("NmsEmail_RetryPeriod", "an hour", "not a delay"),
        ("NmsCleanup_BroadLogPurgeDelay", "180", "180 seconds or 180 days.*write 180s or 180d"),
        ("NmsCleanup_BroadLogPurgeDelay", "0d", "is 1d to 3650d"),
        ("NmsCleanup_LastCleanup", "2026-01-01T00:00Z", "written by cleanup itself"),
        ("NmsEmail_RetryPeriod", "8d", "is 1s to 7d"),
        ("NmsBroadcast_MsgValidityDuration", "59s", "is 60s to 365d"),
        ("NmsBroadcast_MsgValidityDuration", "", "not a delay"),
        ("NmsEmail_RetryCount", "101", "from 0 to 100"),
        ("NmsMidSourcing_PrepareFlow", "100", "from 1 to 8"),
        ("NmsMidSourcing_PrepareFlow", "-1", "from 1 to 8"),
        ("NmsBroadcast_RemoveBlackList", "yes", "0 or 1"),
        (POINTER, "", "not a time"),
        (POINTER, "2020-01-01T10:00", "no time zone"),
        (POINTER, "2100-01-01T00:00Z", "future"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(
    db: Database, clock: ManualClock, name: str, value: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        put(db, name, value, clock)


def test_a_delay_is_read_in_seconds(db: Database, clock: ManualClock) -> None:
    put(db, "NmsEmail_RetryPeriod", "2 h", clock)
    with db.connection() as conn:
        assert options.seconds(conn, "NmsEmail_RetryPeriod") == 7200


@pytest.mark.parametrize(
    ("value", "retries", "period", "validity"),
    [
        ("999999999w", 5, 604_800, 31_536_000),
        ("0s", 5, 1, 60),
        ("1000", 100, 3_600, 432_000),
        ("-3", 5, 3_600, 432_000),
        ("", 5, 3_600, 432_000),
        ("\t; drop table option", 5, 3_600, 432_000),
    ],
)
def test_a_value_written_behind_our_back_never_stops_the_work_that_reads_it(
    db: Database, value: str, retries: int, period: int, validity: int
) -> None:
    with db.transaction() as conn:
        conn.execute(
            "insert into option (name, value, modified_by) select name, %s, 'sql' from unnest(%s::text[]) as name",
            (value, ["NmsEmail_RetryCount", *options.DELAYS]),
        )
        assert options.integer(conn, "NmsEmail_RetryCount") == retries
        assert options.seconds(conn, "NmsEmail_RetryPeriod") == period
        assert options.seconds(conn, "NmsBroadcast_MsgValidityDuration") == validity


def test_unknown_names_say_where_to_look(db: Database, clock: ManualClock) -> None:
    with pytest.raises(NotFound, match="option list"):
        put(db, "NmsNothing", "1", clock)
    with pytest.raises(NotFound, match="no such external account"):
        put(db, "NmsMidSourcing_LastDelivery_nobody", "2020-01-01", clock)


def test_a_jump_forward_says_what_it_skips_and_wants_a_yes(db: Database, clock: ManualClock) -> None:
    put(db, POINTER, "2020-01-01", clock)
    target = show(clock.now() - timedelta(days=1))
    with pytest.raises(options.NotConfirmed, match="skips what the mid recorded in"):
        put(db, POINTER, target, clock)
    assert "skips" in put(db, POINTER, target, clock, yes=True)
    with db.connection() as conn:
        assert options.get_value(conn, POINTER) == target


def test_moving_back_needs_no_yes(db: Database, clock: ManualClock) -> None:
    put(db, POINTER, "2019-06-01T00:00Z", clock)
    with db.connection() as conn:
        assert options.get_value(conn, POINTER) == "2019-06-01T00:00:00.000000+00:00"


def test_an_option_gets_its_default_again_and_a_pointer_has_none(db: Database, clock: ManualClock) -> None:
    put(db, "NmsEmail_RetryCount", "9", clock)
    with db.transaction() as conn:
        assert options.view(conn, "NmsEmail_RetryCount").modified_by == "alice"
        assert options.revert(conn, "NmsEmail_RetryCount", by="bob") == (
            "NmsEmail_RetryCount set from '9' to its default '5' by bob"
        )
        found = options.view(conn, "NmsEmail_RetryCount")
        assert (found.value, found.modified_by, found.is_default) == ("5", "", True)
        with pytest.raises(UserError, match="has no default"):
            options.revert(conn, POINTER, by="bob")


def test_where_the_pointers_stand(db: Database, clock: ManualClock) -> None:
    put(db, POINTER, "2020-01-01", clock)
    with db.connection() as conn:
        counters, logs = standing.positions(conn)
    assert (counters.option, counters.reached_at) == (POINTER, datetime(2020, 1, 1, tzinfo=UTC))
    assert (logs.stream, logs.recent_at) == ("logs", None)

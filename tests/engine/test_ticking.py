"""Which runs a turn of the leader makes: late ticks, ranges of the day, validity, numbers of runs, breakers. A real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from midsource.engine import admin, records, scheduling, ticking
from midsource.engine import runs as ends
from midsource.engine.records import RunRow, WorkflowRow
from midsource.model.errors import Conflict, UserError
from midsource.model.workflow import WorkflowState
from midsource.store.database import Database, scalar

NOW = datetime(2026, 5, 4, 23, 0, tzinfo=UTC)
Make = Callable[..., None]


@pytest.fixture
def make(engine_db: Database) -> Make:
    """``make("flow", schedule="daily at 23:00", next_at=NOW)``: a workflow that has run before."""

    def insert(name: str = "flow", **values: object) -> None:
        values = {"schedule": "daily at 23:00", "next_at": NOW, "last_run_at": NOW - timedelta(days=1)} | values
        columns = ", ".join(["name", *values])
        marks = ", ".join(["%s"] * (len(values) + 1))
        with engine_db.connection() as conn:
            conn.execute(f"insert into workflow ({columns}) values ({marks})", (name, *values.values()))

    return insert


def row(db: Database, name: str = "flow") -> WorkflowRow:
    with db.connection() as conn:
        return records.get(conn, name)


def runs(db: Database, name: str = "flow") -> list[RunRow]:
    with db.connection() as conn:
        return records.runs(conn, name)


def lines(db: Database, name: str = "flow") -> list[str]:
    with db.connection() as conn:
        return [line for _, _, line in records.journal(conn, name)]


def end_run(db: Database, name: str = "flow") -> None:
    with db.connection() as conn:
        conn.execute(
            "update workflow_run set finished_at = now(), outcome = 'finished' where workflow = %s and finished_at is null",
            (name,),
        )


def fail_run(db: Database, again: datetime, name: str = "flow") -> datetime:
    """End the unfinished run as failed; its breaker waits until ``again``, which is returned."""
    with db.transaction() as conn:
        conn.execute(
            "update workflow_run set finished_at = now(), outcome = 'failed' where workflow = %s and finished_at is null",
            (name,),
        )
        ends.fail(conn, name, "Failed", "it failed")
        conn.execute("update workflow set not_before = %s where name = %s", (again, name))
    return again


def test_a_tick_makes_one_run_and_is_absorbed_by_one_that_goes_on(engine_db: Database, make: Make) -> None:
    make()
    assert ticking.make_runs(engine_db, NOW) == 1
    assert row(engine_db).next_at == NOW + timedelta(days=1)
    assert ticking.make_runs(engine_db, NOW + timedelta(days=1)) == 0
    assert len(runs(engine_db)) == 1
    assert row(engine_db).next_at == NOW + timedelta(days=2)


def test_a_missed_tick_is_made_up_once_however_many_were_missed(engine_db: Database, make: Make) -> None:
    make(next_at=NOW - timedelta(days=5))
    assert ticking.make_runs(engine_db, NOW) == 1
    end_run(engine_db)
    assert ticking.make_runs(engine_db, NOW + timedelta(seconds=1)) == 0
    assert lines(engine_db) == ["the run due at 2026-04-29 23:00 (UTC) is made up now, 5 days, 0:00:00 late"]


def test_a_missed_tick_outside_its_range_of_the_day_is_skipped_and_shown(engine_db: Database, make: Make) -> None:
    make(hours="22:00-06:00", zone="Europe/Paris", schedule="daily at 23:00", next_at=NOW)
    found_at = datetime(2026, 5, 5, 8, 0, tzinfo=UTC)
    assert ticking.make_runs(engine_db, found_at) == 0
    assert row(engine_db).skipped_at == NOW
    assert row(engine_db).next_at == datetime(2026, 5, 5, 21, 0, tzinfo=UTC)
    assert lines(engine_db) == [
        "the run due at 2026-05-05 01:00 (Europe/Paris) is skipped: it is 2026-05-05 10:00 (Europe/Paris), outside 22:00-06:00"
    ]


def test_a_missed_tick_inside_its_range_of_the_day_is_made_up(engine_db: Database, make: Make) -> None:
    make(hours="22:00-06:00", next_at=NOW)
    assert ticking.make_runs(engine_db, NOW + timedelta(hours=6)) == 1


def test_a_number_of_runs_is_used_up_and_the_workflow_is_finished_with_a_line(engine_db: Database, make: Make) -> None:
    make(runs_left=2)
    assert ticking.make_runs(engine_db, NOW) == 1
    end_run(engine_db)
    later = NOW + timedelta(days=1)
    assert ticking.make_runs(engine_db, later) == 1
    assert (row(engine_db).runs_left, row(engine_db).next_at) == (0, None)
    assert ticking.make_runs(engine_db, later) == 0
    assert row(engine_db).state is WorkflowState.STARTED, "its last run goes on"
    end_run(engine_db)
    ticking.make_runs(engine_db, later)
    assert (row(engine_db).state, row(engine_db).held_by) == (WorkflowState.FINISHED, "its schedule")
    assert lines(engine_db)[-1].startswith("finished: its number of runs is used up; give it another schedule")
    with engine_db.connection() as conn, pytest.raises(Conflict, match="its number of runs is used up"):
        admin.start(conn, "flow", later)


def test_a_try_again_uses_up_no_run_and_moves_no_tick(engine_db: Database, make: Make) -> None:
    tomorrow = NOW + timedelta(days=1)
    make(runs_left=1, not_before=NOW, next_at=tomorrow, failed=True, consecutive_failures=1)
    assert ticking.make_runs(engine_db, NOW) == 1
    assert (row(engine_db).runs_left, row(engine_db).next_at, row(engine_db).not_before) == (1, tomorrow, None)


def test_the_last_run_is_tried_again_when_it_fails_and_again_until_it_succeeds(engine_db: Database, make: Make) -> None:
    make(runs_left=1)
    assert ticking.make_runs(engine_db, NOW) == 1
    for failures in (1, 2):
        again = fail_run(engine_db, NOW + timedelta(minutes=failures))
        assert (row(engine_db).runs_left, row(engine_db).next_at) == (0, None)
        assert ticking.make_runs(engine_db, again) == 1
        assert (row(engine_db).runs_left, row(engine_db).not_before) == (0, None)
    assert row(engine_db).state is WorkflowState.STARTED
    assert len(runs(engine_db)) == 3
    end_run(engine_db)
    ticking.make_runs(engine_db, NOW + timedelta(hours=1))
    assert row(engine_db).state is WorkflowState.FINISHED


def test_a_tick_that_came_while_a_breaker_waited_uses_up_its_run(engine_db: Database, make: Make) -> None:
    make(runs_left=1, not_before=NOW + timedelta(hours=1), next_at=NOW, failed=True)
    assert ticking.make_runs(engine_db, NOW + timedelta(hours=1)) == 1
    assert (row(engine_db).runs_left, row(engine_db).next_at) == (0, None)


def test_a_breaker_that_waits_holds_the_ticks_back(engine_db: Database, make: Make) -> None:
    make(schedule="every minute", not_before=NOW + timedelta(minutes=30), next_at=NOW, failed=True)
    assert ticking.make_runs(engine_db, NOW) == 0
    assert ticking.make_runs(engine_db, NOW + timedelta(minutes=30)) == 1


def test_a_try_again_outside_the_range_of_the_day_waits_for_its_next_opening(engine_db: Database, make: Make) -> None:
    morning = datetime(2026, 5, 5, 6, 21, tzinfo=UTC)
    opening = datetime(2026, 5, 5, 22, 0, tzinfo=UTC)
    tick = NOW + timedelta(days=1)
    make(hours="22:00-06:00", not_before=morning, next_at=tick, failed=True, consecutive_failures=6)
    for seconds in (0, 1, 3600):
        assert ticking.make_runs(engine_db, morning + timedelta(seconds=seconds)) == 0
    assert (row(engine_db).not_before, row(engine_db).next_at) == (opening, tick)
    assert lines(engine_db) == [
        "the try again after its failure waits until 2026-05-05 22:00 (UTC): it is 2026-05-05 06:21 (UTC), outside 22:00-06:00"
    ]
    assert ticking.make_runs(engine_db, opening) == 1
    assert (row(engine_db).not_before, row(engine_db).next_at) == (None, tick)


def test_a_try_again_after_the_validity_is_given_up_and_ends_the_workflow(engine_db: Database, make: Make) -> None:
    make(valid_to=NOW + timedelta(minutes=30), not_before=NOW + timedelta(hours=1), next_at=None, failed=True)
    assert ticking.make_runs(engine_db, NOW + timedelta(hours=1)) == 0
    assert lines(engine_db) == ["the try again after its failure is given up: its validity is over"]
    ticking.make_runs(engine_db, NOW + timedelta(hours=1, seconds=1))
    assert row(engine_db).state is WorkflowState.FINISHED


def test_a_validity_that_ended_finishes_the_workflow(engine_db: Database, make: Make) -> None:
    make(valid_to=NOW + timedelta(hours=1))
    assert ticking.make_runs(engine_db, NOW) == 1
    end_run(engine_db)
    ticking.make_runs(engine_db, NOW + timedelta(minutes=1))
    assert row(engine_db).state is WorkflowState.FINISHED
    assert lines(engine_db)[-1].startswith(
        "finished: no time of 'daily at 23:00' comes any more before its validity ends;"
    )


def test_a_tick_missed_until_after_the_validity_is_not_made_up(engine_db: Database, make: Make) -> None:
    make(valid_to=NOW + timedelta(hours=1))
    assert ticking.make_runs(engine_db, NOW + timedelta(hours=2)) == 0
    assert "is skipped: its validity is over" in lines(engine_db)[-1]


def test_a_new_one_runs_at_once_where_it_runs_hourly_and_waits_for_its_time_otherwise(
    engine_db: Database, make: Make
) -> None:
    make("often", schedule="every 10 minutes", next_at=None, last_run_at=None)
    make("nightly", schedule="daily at 04:00", next_at=None, last_run_at=None)
    assert ticking.make_runs(engine_db, NOW) == 1
    assert len(runs(engine_db, "often")) == 1
    assert row(engine_db, "nightly").next_at == datetime(2026, 5, 5, 4, 0, tzinfo=UTC)


def test_runs_due_in_the_same_turn_begin_apart(engine_db: Database, make: Make) -> None:
    for name in ("a", "b", "c"):
        make(name)
    assert ticking.make_runs(engine_db, NOW) == 3
    with engine_db.connection() as conn:
        apart = conn.execute(
            "select extract(epoch from due_at - lag(due_at) over (order by due_at))::int from workflow_run order by due_at"
        ).fetchall()
    assert [seconds for (seconds,) in apart][1:] == [3, 3]


def test_a_schedule_broken_by_hand_says_so_and_stops_no_other(engine_db: Database, make: Make) -> None:
    make("a", schedule="now and then")
    make("b")
    assert ticking.make_runs(engine_db, NOW) == 1
    assert row(engine_db, "a").failed
    assert "is not a schedule" in row(engine_db, "a").cause
    assert row(engine_db, "a").next_ticks(NOW) == []


def test_a_schedule_is_saved_with_who_gave_it_and_when_it_is_due_next(engine_db: Database, make: Make) -> None:
    make()
    wanted = scheduling.Wanted(
        "weekly on monday at 5:00", "Europe/Paris", valid_from="2026-06-01", runs=3, hours="04:00-06:00"
    )
    proposal = scheduling.propose(wanted, NOW)
    assert len(proposal.ticks) == 3
    with engine_db.transaction() as conn:
        saved = scheduling.save(conn, "flow", proposal.plan, "alice", NOW)
    assert saved.next_at == proposal.ticks[0] == datetime(2026, 6, 1, 3, 0, tzinfo=UTC)
    assert scheduling.propose(scheduling.present(saved), NOW).plan == proposal.plan
    assert scheduling.described(saved) == (
        "weekly on monday at 05:00 (Europe/Paris), between 04:00-06:00, from 2026-05-31 22:00 UTC, 3 runs left"
    )
    assert lines(engine_db)[-1].endswith("by alice")
    with pytest.raises(UserError, match="no run would come"):
        scheduling.propose(scheduling.Wanted("once at 2020-01-01 10:00"), NOW)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("runs_left", -1),
        ("hours", "22-6"),
        ("schedule", ""),
        ("valid_to", datetime(2026, 1, 1, tzinfo=UTC)),
        ("warnings", -1),
    ],
)
def test_the_database_refuses_what_no_schedule_has(engine_db: Database, make: Make, column: str, value: object) -> None:
    make(valid_from=datetime(2026, 1, 1, tzinfo=UTC))
    with engine_db.connection() as conn, pytest.raises(Exception, match="violates check constraint"):
        conn.execute(f"update workflow set {column} = %s", (value,))


def test_the_rows_of_the_version_before_stay_valid(engine_db: Database, make: Make) -> None:
    make(schedule="*/10 * * * *", next_at=NOW)
    assert ticking.make_runs(engine_db, NOW) == 1
    with engine_db.connection() as conn:
        assert scalar(conn, "select schedule_by from workflow") == ""

"""Who failed, who is late, who is held: judged by values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from midsource.engine.records import RunRow, WorkflowRow
from midsource.engine.watch import RUNS_SHOWN, Flag, summary
from midsource.model.workflow import WorkflowState

NOW = datetime(2026, 3, 1, 12, 5, tzinfo=UTC)
ROW = WorkflowRow(
    "tenMinutes", WorkflowState.STARTED, False, "*/10 * * * *", "UTC", NOW, NOW, NOW, 0, None, "",
    created_at=NOW - timedelta(days=9),
)  # fmt: skip


def run(number: int, outcome: str | None, beat: timedelta = timedelta(0)) -> RunRow:
    began = NOW - timedelta(minutes=number)
    ended = began + timedelta(seconds=number) if outcome else None
    return RunRow(number, began, "schedule", began, ended, 1, 0, 0, 0, "", "", outcome, "", beat_at=NOW - beat)


@pytest.mark.parametrize(
    ("minutes", "flag"),
    [(4, Flag.FINE), (14, Flag.FINE), (16, Flag.LATE), (60 * 24 * 400, Flag.LATE)],
)
def test_late_is_after_two_ticks_without_a_success(minutes: int, flag: Flag) -> None:
    """12:05; a success at 11:51 had its second tick at 12:10, one at 11:49 at 12:00."""
    assert summary(replace(ROW, last_success_at=NOW - timedelta(minutes=minutes)), [], NOW).flag is flag


def test_one_that_never_succeeded_is_late_from_its_second_tick() -> None:
    new = replace(ROW, last_success_at=None, created_at=NOW - timedelta(minutes=8))
    assert summary(new, [], NOW).flag is Flag.FINE
    assert summary(replace(new, created_at=NOW - timedelta(minutes=20)), [], NOW).flag is Flag.LATE


def test_a_run_under_way_is_not_late_while_it_gives_signs_of_life() -> None:
    old = replace(ROW, last_success_at=NOW - timedelta(days=3))
    assert summary(old, [run(500, None, timedelta(seconds=50))], NOW).flag is Flag.FINE
    assert summary(old, [run(500, None, timedelta(minutes=3))], NOW).flag is Flag.LATE


def test_what_an_operator_holds_is_not_late_and_a_failure_comes_before_everything() -> None:
    old = replace(ROW, last_success_at=NOW - timedelta(days=3))
    assert summary(replace(old, state=WorkflowState.PAUSED), [], NOW).flag is Flag.PAUSED
    assert summary(replace(old, state=WorkflowState.FINISHED), [], NOW).flag is Flag.STOPPED
    assert summary(replace(old, state=WorkflowState.PAUSED, failed=True), [], NOW).flag is Flag.FAILED
    assert summary(replace(old, schedule="broken"), [], NOW).flag is Flag.FINE, "the leader says so by the failed flag"


def test_the_unfinished_run_is_apart_from_those_that_ended() -> None:
    found = summary(ROW, [run(1, None), *(run(n, "finished") for n in range(2, 40))], NOW)
    assert found.open is not None
    assert found.open.id == 1
    assert found.open.seconds is None
    assert [ended.id for ended in found.ended] == list(range(2, 2 + RUNS_SHOWN))
    assert found.last is not None
    assert found.last.seconds == 2.0


def test_a_summary_holds_breaker_ticks_age_and_durations() -> None:
    broken = replace(
        ROW, failed=True, consecutive_failures=2, not_before=NOW + timedelta(minutes=1), error_class="Unhealthy",
        last_error="the database is away\nand a second line", last_success_at=NOW - timedelta(hours=1),
    )  # fmt: skip
    found = summary(broken, [run(n, "failed") for n in range(1, 4)], NOW)
    assert found.row.cause == "the database is away"
    assert (found.breaker.circuit.value, found.breaker.until) == ("open", broken.not_before)
    assert found.success_age == timedelta(hours=1)
    assert found.seconds == [3.0, 2.0, 1.0], "oldest first"
    assert found.next_ticks == [NOW + timedelta(minutes=5 + 10 * n) for n in range(5)]
    assert summary(replace(ROW, last_success_at=None), [], NOW).success_age is None
    assert summary(replace(ROW, schedule="broken"), [], NOW).next_ticks == []

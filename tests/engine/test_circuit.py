"""The breaker by values: what is waited for, until when, what ends the wait; and which failures are alike."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from midsource.engine.circuit import SAID, Circuit, WaitsFor, breaker, common, different, failures_alike, waits_for
from midsource.engine.records import RunRow, WorkflowRow
from midsource.model.errors import Bug, Failed, RemoteUnavailable
from midsource.model.workflow import WorkflowState
from midsource.store.database import StatementTimeout, StorageFull

NOW = datetime(2026, 3, 1, 12, 5, tzinfo=UTC)
ROW = WorkflowRow(
    "tenMinutes", WorkflowState.STARTED, True, "every 10 minutes", "UTC", NOW, NOW, NOW, 3, NOW + timedelta(minutes=1),
    "mid1: does not answer", error_class="RemoteUnavailable",
)  # fmt: skip


def run(outcome: str | None, error: str = "", kind: str = "Failed") -> RunRow:
    return RunRow(1, NOW, "schedule", NOW, NOW, 1, 0, 0, 0, "", "", outcome, error, kind)


def test_an_open_breaker_says_what_it_waits_for_until_when_and_what_ends_the_wait() -> None:
    found = breaker(ROW, NOW)
    assert (found.circuit, found.until) == (Circuit.OPEN, ROW.not_before)
    assert str(found) == (
        "failed 3 times in a row; waits for the other side to answer until 2026-03-01 12:06:00 UTC; "
        "`midsource workflow restart tenMinutes` ends the wait"
    )


def test_it_is_tried_when_the_wait_is_over_and_closed_by_a_success() -> None:
    assert breaker(replace(ROW, not_before=NOW), NOW).circuit is Circuit.TRYING
    assert "is being tried now" in str(breaker(replace(ROW, not_before=None, consecutive_failures=1), NOW))
    closed = breaker(replace(ROW, failed=False, not_before=None), NOW)
    assert (closed.circuit, str(closed)) == (Circuit.CLOSED, "")


@pytest.mark.parametrize(
    ("kind", "waits"),
    [
        ("StatementTimeout", WaitsFor.TIME_LIMIT),
        ("StorageFull", WaitsFor.SPACE),
        ("Unhealthy", WaitsFor.DATABASE),
        ("Conflict", WaitsFor.WRITER),
        ("LinkFailure", WaitsFor.REMOTE),
        ("NotAMid", WaitsFor.CAUSE),
        ("Failed", WaitsFor.CAUSE),
        ("", WaitsFor.CAUSE),
        ("KeyError", WaitsFor.FAULT),
        ("Bug", WaitsFor.FAULT),
    ],
)
def test_a_class_of_error_says_what_must_change(kind: str, waits: WaitsFor) -> None:
    assert waits_for(kind) is waits


@pytest.mark.parametrize(
    ("kinds", "raised"),
    [
        (["StatementTimeout", "StatementTimeout"], StatementTimeout),
        (["LinkFailure", "RemoteUnavailable"], RemoteUnavailable),
        (["StorageFull"], StorageFull),
        (["Bug", "KeyError"], Bug),
        (["Failed", "RemoteRefused"], Failed),
        (["StatementTimeout", "Failed"], Failed),
        (["", ""], Failed),
        ([], Failed),
    ],
)
def test_a_run_fails_with_what_all_that_failed_in_it_waits_for(kinds: list[str], raised: type[Exception]) -> None:
    assert common(kinds) is raised
    assert common(iter(kinds)) is raised


def test_every_wait_has_words_and_every_restart_says_what_is_different() -> None:
    kinds = ("RemoteUnavailable", "Unhealthy", "StatementTimeout", "StorageFull", "Conflict", "Failed", "KeyError")
    assert {waits_for(kind) for kind in kinds} == set(WaitsFor) == set(SAID)
    for kind in kinds:
        assert "this time" in different(replace(ROW, error_class=kind), [run("failed", "x", kind)] * 2)


def test_failures_are_alike_by_class_and_words_figures_apart() -> None:
    runs = [
        run(None),
        run("failed", "row 17"),
        run("aborted"),
        run("failed", "row 4"),
        run("failed", "other"),
        run("finished"),
    ]
    assert failures_alike(runs) == 2
    assert failures_alike([run("finished"), *runs]) == 0
    assert failures_alike([run("failed", "row 1", "Bug"), *runs]) == 1
    assert failures_alike([]) == 0
    assert different(ROW, [run("failed", "once")]) == ""

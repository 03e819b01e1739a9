"""Paused and forgotten: warned in the own journal, ended after four warnings with a row in the audit. A real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from midsource.engine import admin, records
from midsource.engine.work import Context
from midsource.model.options import PAUSED_PERIOD
from midsource.model.workflow import WorkflowState
from midsource.security import audit
from midsource.store import migrate, options
from midsource.store.database import Database
from midsource.testing.clock import ManualClock
from midsource.workflows import cleanup_paused_workflows
from midsource.workflows.cleanup_paused_workflows import Settings, run_once

MONDAY = datetime(2026, 5, 4, 5, 0, tzinfo=UTC)


@pytest.fixture(params=["marketing", "mid"])
def opened(request: pytest.FixtureRequest, database: Callable[[], str]) -> Iterator[Database]:
    with Database(request.param, database(), application="tests") as found:
        migrate.upgrade(found, request.param)
        with found.connection() as conn:
            conn.execute(
                "insert into workflow (name, schedule, state, held_at, held_by) values "
                "('forgotten', 'every hour', 13, %(since)s, 'alice'), ('held', 'every hour', 13, %(lately)s, 'bob'), "
                "('stopped', 'every hour', 20, %(since)s, 'bob'), ('running', 'every hour', 11, null, '')",
                {"since": MONDAY - timedelta(days=8), "lately": MONDAY - timedelta(days=2)},
            )
        yield found


def context(database: Database, now: datetime, said: list[str]) -> Context:
    return Context(
        database=database,
        clock=ManualClock(now),
        home=Path(),
        instance="test",
        subject=0,
        say=lambda _, line: said.append(line),
        beat=lambda: None,
        progress=lambda _: None,
    )


def test_only_what_is_paused_for_too_long_is_warned_about_and_once_a_week(opened: Database) -> None:
    said: list[str] = []
    report = run_once(context(opened, MONDAY, said))
    assert (report.rows_read, report.rows_written) == (2, 1)
    assert "; ".join(said) == (
        "forgotten paused by alice since 2026-04-26 05:00 UTC: warning 1 of 4; "
        "it is ended in 4 weeks unless it is started (`midsource workflow start forgotten`)"
    )
    assert run_once(context(opened, MONDAY + timedelta(hours=1), said)).rows_written == 0
    with opened.connection() as conn:
        row = records.get(conn, "forgotten")
        assert (row.warnings, row.warned_at, row.state) == (1, MONDAY, WorkflowState.PAUSED)
        assert [level for _, level, _ in records.journal(conn, "forgotten")] == ["warning"]


def test_after_four_warnings_it_is_ended_as_stop_does_with_line_and_audit(opened: Database) -> None:
    said: list[str] = []
    for week in range(5):
        run_once(context(opened, MONDAY + timedelta(days=7 * week), said))
    with opened.connection() as conn:
        row = records.get(conn, "forgotten")
        assert (row.state, row.held_by) == (WorkflowState.FINISHED, "cleanupPausedWorkflows")
        assert records.get(conn, "stopped").held_by == "bob"
        lines = [line for _, _, line in records.journal(conn, "forgotten")]
        entries = audit.page(conn, subject="forgotten").entries
    assert [line.split(": ")[1].split(";")[0] for line in lines[:4]] == [f"warning {n} of 4" for n in (1, 2, 3, 4)]
    assert "it is ended next week" in lines[3]
    assert lines[4].startswith("paused by alice since 2026-04-26 05:00 UTC, and 4 warnings: ended")
    assert [(entry.who, entry.verb, entry.detail["warnings"]) for entry in entries] == [("system", "workflow.stop", 4)]


def test_starting_it_forgets_the_warnings(opened: Database) -> None:
    run_once(context(opened, MONDAY, []))
    with opened.connection() as conn:
        admin.start(conn, "forgotten", MONDAY)
        admin.pause(conn, "forgotten", "alice")
        assert records.get(conn, "forgotten").warnings == 0


def test_the_period_is_an_option_with_a_unit_and_a_broken_one_counts_as_its_default(opened: Database) -> None:
    with opened.connection() as conn:
        options.write(conn, PAUSED_PERIOD, "30d", by="alice")
    assert run_once(context(opened, MONDAY, [])).rows_written == 0
    with opened.connection() as conn:
        options.write(conn, PAUSED_PERIOD, "now and then", by="alice")
    assert run_once(context(opened, MONDAY, [])).rows_written == 1
    assert run_once(context(opened, MONDAY, []), Settings(timedelta(days=1))).rows_written == 1, "bob's too"


def test_its_settings_follow_the_option_by_default() -> None:
    assert Settings().period is None
    assert cleanup_paused_workflows.ROLES == ("marketing", "mid")

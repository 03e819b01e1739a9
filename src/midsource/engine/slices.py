"""Run one slice of a job or of a technical workflow and record what came of it.

Order of events: *begin* (this executor takes the row; a slice already recorded is not run again) → body → *settle* in one
transaction: finished, failed, aborted, or due again. Every write after begin is guarded by (executor, slice number), so an
executor that lost the row to another writes nothing more. Begin and settle are repeated while the database is away, up to
``AWAY_SECONDS``; both may be repeated after a commit of unknown fate. A job that is asked for while its slice runs is not
finished by that slice: what was asked may have come after the slice looked. The journal cannot fail for the cause of the run
(journal.py; F105, F108).

*Fencing* of technical workflows: each transaction of a body looks, just before it commits, whether this executor still holds the
run, and holds the row until it has committed. So a worker that was stopped in a page, and woke up when another had taken
over, writes nothing; and neither does a run that was killed. One that an operator stopped may commit its page.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import structlog
from psycopg import sql
from psycopg.types.json import Jsonb

from midsource.engine import admin, circuit, jobs, journal, moves, records, runs
from midsource.engine.work import Cancelled, Context, JobBody, Report, Works
from midsource.model.clock import Clock
from midsource.model.errors import Bug, Conflict, Failed, MidsourceError, RemoteUnavailable, Unhealthy, first_line
from midsource.model.workflow import WorkflowEvent
from midsource.store.database import STATEMENT_SECONDS, Connection, Database, StatementTimeout, StorageFull, scalar

Table = Literal["job", "workflow_run"]
MAX_ERROR_TEXT = 2_000
MAX_JOB_PAUSE_SECONDS = 60
"""A job that waits for a mid looks again at least once a minute."""
AWAY_SECONDS = 120
"""A restart of PostgreSQL takes seconds, a recovery a minute or two; after that the reaper makes the row due again."""
AGAIN_SECONDS = 1.0
PASSING = (RemoteUnavailable, Unhealthy, Conflict, StatementTimeout, StorageFull)
"""Failures that time may mend: a job tries again; a technical workflow fails this run, whatever failed, and has another
after ``ticks.back_off``."""

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Held:
    """A row this executor holds: what guards every later write."""

    table: Table
    id: str
    slice: int
    name: str  # kind of the job, or name of the workflow
    subject: int
    failures: int
    began_at: datetime | None


class SliceRunner:
    """Runs slices for one worker process. ``stopping`` set: bodies are asked to leave at their next beat."""

    def __init__(
        self, database: Database, clock: Clock, home: Path, instance: str, executor: str, works: Works
    ) -> None:
        self._database = database
        self._clock = clock
        self._home = home
        self._instance = instance
        self._executor = executor
        self._jobs = {kind.name: kind.body for kind in works.jobs}
        self._workflows = {module.NAME: module.run_once for module in works.workflows}
        self.stopping = threading.Event()

    def run(self, table: Table, work_id: str, number: int) -> str:
        """Run slice ``number`` of the row; return one word for the engine's history. Raises nothing of the body's."""
        held = self._begin(table, work_id, number)
        if held is None:
            return "superseded"
        try:
            report = self._body(held)(self._context(held))
        except Cancelled:
            return self._settle(held, self._requeue if self.stopping.is_set() else self._abort)
        except Exception as exc:  # noqa: BLE001 - invariant 9: whatever a body raises ends that body only
            return self._settle_failure(held, exc)
        return self._settle(held, lambda conn, row: self._record(conn, row, report))

    def _begin(self, table: Table, work_id: str, number: int) -> Held | None:
        name, subject, failures = ("kind", "subject", "failures") if table == "job" else ("workflow", "0", "0")
        statement = sql.SQL(
            "update {table} set executor = %s, started_at = coalesce(started_at, now()), beat_at = now() "
            "where id::text = %s and slices = %s and finished_at is null returning {name}, {subject}, {failures}, started_at"
        ).format(table=sql.Identifier(table), name=sql.SQL(name), subject=sql.SQL(subject), failures=sql.SQL(failures))

        def take() -> Held | None:
            with self._database.transaction() as conn:
                row = conn.execute(statement, (self._executor, work_id, number)).fetchone()
                if row is None:
                    return None
                held = Held(table, work_id, number, *row)
                if table == "workflow_run" and not runs.begin(conn, held.name, int(work_id)):
                    self._next_slice(conn, held, 0)
                    return None
            return held

        return self._patiently(take)

    def _body(self, held: Held) -> JobBody:
        body = (self._jobs if held.table == "job" else self._workflows).get(held.name)
        if body is None:
            raise Failed(f"this worker does not know {held.name!r}", "run the same version of midsource everywhere")
        return body

    def _context(self, held: Held) -> Context:
        return Context(
            database=self._database_of(held),
            clock=self._clock,
            home=self._home,
            instance=self._instance,
            subject=held.subject,
            say=lambda level, line: self._say(held, level, line),
            beat=lambda: self._beat(held),
            progress=lambda values: self._progress(held, values),
            began_at=held.began_at,
        )

    def _database_of(self, held: Held) -> Database:
        """Return what the body may use: of a technical workflow, sessions that bear its number and are fenced."""
        if held.table == "job":
            return self._database
        with self._database.connection() as conn:
            latest = records.runs(conn, held.name, circuit.RUNS_LOOKED_AT)
        name, fence = admin.session_name(int(held.id)), partial(self._fence, held)
        longer = circuit.statement_seconds(latest)
        return self._database.on_behalf_of(name, fence, longer if longer > STATEMENT_SECONDS else None)

    def _fence(self, held: Held, conn: Connection) -> None:
        """Raise Cancelled unless this executor holds the run; nobody takes it until the transaction has ended."""
        mine = conn.execute(
            "select from workflow_run where id = %s and slices = %s and executor = %s and error_class <> %s for share",
            (int(held.id), held.slice, self._executor, admin.KILLED),
        ).fetchone()
        if mine is None:
            raise Cancelled("killed, or taken over by another worker")

    def _guarded(self, conn: Connection, held: Held, assignments: str, *values: Any) -> bool:
        """Update the held row; False when this executor no longer holds it. ``assignments`` is a constant of ours."""
        statement = sql.SQL(
            "update {table} set {set} where id::text = %s and slices = %s and executor = %s and finished_at is null"
        ).format(table=sql.Identifier(held.table), set=sql.SQL(assignments))
        return conn.execute(statement, (*values, held.id, held.slice, self._executor)).rowcount == 1

    def _beat(self, held: Held) -> None:
        if self.stopping.is_set():
            raise Cancelled("the worker is stopping")
        with self._database.connection() as conn:
            if not self._guarded(conn, held, "beat_at = now()"):
                raise Cancelled("stopped, or taken over by another worker")

    def _say(self, held: Held, level: str, line: str) -> None:
        level = level if level in journal.LEVELS else "info"
        about = {"run": int(held.id)} if held.table == "workflow_run" else {"job": held.id, "delivery": held.subject}
        getattr(log, level)("journal", action="journal", **about, name=held.name, line=line)
        run = held.table == "workflow_run"
        name, run_id = (held.name, int(held.id)) if run else (f"job:{held.id}", None)
        journal.append(self._database, name, run_id, level, line)

    def _progress(self, held: Held, values: dict[str, Any]) -> None:
        if held.table != "job":
            return
        try:
            with self._database.connection() as conn:
                self._guarded(conn, held, "progress = %s, beat_at = now()", Jsonb(values))
        except MidsourceError as exc:
            log.warning("progress_unwritten", action="progress_unwritten", work=held.id, cause=str(exc))

    def _settle(self, held: Held, record: Callable[[Connection, Held], str]) -> str:
        def write() -> str:
            with self._database.transaction() as conn:
                return record(conn, held)

        return self._patiently(write)

    def _patiently(self, act: Callable[[], T]) -> T:
        """Repeat a transaction of ours while the database is away; raises what it raised when that takes too long."""
        deadline = time.monotonic() + AWAY_SECONDS
        while True:
            try:
                return act()
            except (Unhealthy, Conflict, StatementTimeout, StorageFull) as exc:
                if self.stopping.is_set() or time.monotonic() > deadline:
                    raise
                log.warning("database_awaited", action="database_awaited", cause=str(exc))
                self.stopping.wait(AGAIN_SECONDS)

    def _settle_failure(self, held: Held, exc: Exception) -> str:
        known = isinstance(exc, MidsourceError)
        sentence = str(exc) if known else str(Bug(first_line(exc), "please report it with the worker's log"))
        if not known:
            log.error(
                "slice_bug", action="slice_bug", work=held.id, name=held.name, trace=traceback.format_exc()[-4000:]
            )
        passing = isinstance(exc, PASSING) and held.table == "job"
        kind, text = type(exc).__name__, sentence[:MAX_ERROR_TEXT]
        if passing:
            said = self._settle(held, lambda conn, row: self._try_again(conn, row, text))
        else:
            said = self._settle(held, lambda conn, row: self._fail(conn, row, kind, text))
        if said != "superseded":  # of a run that was killed or lost, what its statements raised is no news
            self._say(held, "warning" if passing else "error", sentence)
        return said

    def _record(self, conn: Connection, held: Held, report: Report) -> str:
        """Count what the slice did; then finish, or make the next slice due."""
        again = report.more_after_seconds is not None
        if held.table == "job":
            kept = self._guarded(conn, held, "failures = 0, error = ''")
        else:
            kept = self._guarded(
                conn,
                held,
                "rows_read = rows_read + %s, rows_written = rows_written + %s, rows_refused = rows_refused + %s, "
                "window_from = case when window_from = '' then %s else window_from end, window_to = %s",
                *(report.rows_read, report.rows_written, report.rows_refused, report.window_from, report.window_to),
            )
        if not kept:
            return "superseded"
        if again and report.failing is not None and held.table == "workflow_run":
            runs.mark(conn, held.name, int(held.id), report.failing)
        if again or self._asked_meanwhile(conn, held):
            return self._next_slice(conn, held, report.more_after_seconds or 0)
        for kind in report.then:
            jobs.ask(conn, kind, held.subject, held.id)
        self._guarded(conn, held, "finished_at = now(), outcome = 'finished'")
        if held.table == "workflow_run":
            runs.succeed(conn, held.name, int(held.id))
        return "finished"

    def _next_slice(self, conn: Connection, held: Held, pause_seconds: float) -> str:
        self._guarded(
            conn,
            held,
            "slices = slices + 1, enqueued_at = null, executor = null, beat_at = now(), "
            "due_at = case when due_at > enqueued_at then now() else now() + make_interval(secs => %s) end",
            pause_seconds,
        )
        return "more"

    @staticmethod
    def _asked_meanwhile(conn: Connection, held: Held) -> bool:
        """Tell whether the job was asked for since its slice began: see ``jobs.ask``. The row is locked by us."""
        if held.table != "job":
            return False
        return bool(scalar(conn, "select due_at > enqueued_at from job where id = %s", (held.id,)))

    def _requeue(self, conn: Connection, held: Held) -> str:
        return self._next_slice(conn, held, 0)

    def _try_again(self, conn: Connection, held: Held, sentence: str) -> str:
        pause = min(MAX_JOB_PAUSE_SECONDS, 2.0 ** min(held.failures, 6))
        self._guarded(conn, held, "failures = failures + 1, error = %s", sentence)
        return self._next_slice(conn, held, pause)

    def _abort(self, conn: Connection, held: Held) -> str:
        kept = self._guarded(conn, held, "finished_at = now(), outcome = 'aborted'")
        if kept and held.table == "workflow_run":
            moves.move(conn, held.name, WorkflowEvent.SETTLED)
        return "aborted"

    def _fail(self, conn: Connection, held: Held, kind: str, sentence: str) -> str:
        if held.table == "job":
            if not self._guarded(conn, held, "error = %s", sentence):
                return "superseded"
            if self._asked_meanwhile(conn, held):
                return self._next_slice(conn, held, 0)
            self._guarded(conn, held, "finished_at = now(), outcome = 'failed'")
            return "failed"
        if not self._guarded(
            conn, held, "finished_at = now(), outcome = 'failed', error_class = %s, error = %s", kind, sentence
        ):
            return "superseded"
        runs.fail(conn, held.name, kind, sentence)
        return "failed"

"""The leader: one worker among all machines of an instance makes due runs, hands work to the queue, and reaps the dead.

Leadership is a session advisory lock on a connection of its own: whoever holds it leads, and a dead process or a cut
connection gives it up by itself. Each turn (once a second, or at once when woken) does, each step on its own:

1. *ticks*: a technical workflow that is due gets one unfinished run (``ticking``).
2. *outbox*: rows whose next slice is due are handed to the queue under a name made of row and slice, then marked; a crash
   between the two hands over the same name again, which the queue ignores.
3. *reaper*, every 10 s: what the engine holds for a life that does not beat any more goes back to the queue, also when the
   process was started again under its name; the slice of a run that was killed, or that does not leave after a stop, is
   taken out of the queue, and so is one that ended by our record and not by the engine's, or that the engine counts as
   running and nobody began (the database went away between the two); a slice that the engine ended without a result is due
   again, and so are rows not beaten for long, whose slice is cancelled so that it blocks none.
4. *partitions*, every 10 minutes: this month's and the next ones', the next days'; one that a cut drop left detached is
   attached again, where no `cleanup` goes on with it.

Nothing ends the loop, whatever a driver or the engine raises: a leader that ended would stop every workflow, unseen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg
import structlog

from midsource.engine import admin, moves, ticking
from midsource.engine.slices import Table
from midsource.engine.work import SLICE_SECONDS
from midsource.model.clock import Clock
from midsource.model.errors import said
from midsource.store import migrate, partitions, processes
from midsource.store.database import Connection, Database

TURN_SECONDS = 1.0
REAP_SECONDS = 10.0
PARTITION_SECONDS = 600.0
PARTITION_AGAIN_SECONDS = 10.0
"""After a lock on a parent that was not had within two seconds: its statistics are being taken, or a partition goes."""
LEADER_LOCK = 0x6D69647372630002
"""Advisory lock key: 'midsrc' and a number; one leader an instance."""
OUTBOX_BATCH = 100
LOST_AFTER_SECONDS = 900
"""An unfinished slice not beaten for this long hangs: the longest statement of any takes 600 s (targeting), and beats after it."""
LEAVING_SECONDS = 2 * SLICE_SECONDS
"""A slice of a run that was stopped leaves at its next beat; one that has not by then hangs, and must not block the next run."""
SESSION = (
    "-c statement_timeout=10s -c tcp_user_timeout=20s "
    "-c idle_session_timeout=30s"  # the lock of a machine that is gone is free after this; a leader speaks each second
)

_JOBS = "select id, slices, kind || ':' || subject from job where finished_at is null"
_RUNS = (  # paused or stopped: the next slice waits for the operator
    "select r.id::text, slices, workflow from workflow_run r join workflow on name = workflow and state = any(%s) "
    "where finished_at is null"
)
_LEFT_BEHIND = """
select s.workflow_uuid
  from dbos.workflow_status s
  join workflow_run r on s.workflow_uuid = 'workflow_run:' || r.id || ':' || r.slices
 where s.status in ('PENDING', 'ENQUEUED') and r.outcome = 'aborted'
   and (r.error_class = %s or r.finished_at < now() - make_interval(secs => %s))
 limit 100
"""
RECORDING_SECONDS = 10
"""From our record of a slice's end to the engine's: milliseconds. One that is missing after this never comes."""
_UNRECORDED = " union all ".join(
    f"select s.workflow_uuid from dbos.workflow_status s join {table} w on s.workflow_uuid like '{table}:%%' "  # noqa: S608 - literals
    "and w.id::text = split_part(s.workflow_uuid, ':', 2) "
    "where s.status = 'PENDING' and ((w.finished_at is null and w.slices > split_part(s.workflow_uuid, ':', 3)::int "
    "and w.beat_at < now() - make_interval(secs => %(after)s)) or w.outcome <> 'aborted' and w.finished_at < now() - make_interval(secs => %(after)s))"
    for table in ("job", "workflow_run")
)
"""Slices that ended by our record and go on by the engine's, because the database went away between the two: as long as
its process lives, no other slice of the same key would begin. A stopped run is not among them: its slice may still end its page."""
BEGINNING_SECONDS = 30
"""From the engine's claim of a slice to our record that it began: milliseconds, seconds while rows are locked."""
_UNBEGUN = " union all ".join(
    f"select s.workflow_uuid from {table} w join dbos.workflow_status s on s.workflow_uuid = '{table}:' || w.id || ':' || w.slices "  # noqa: S608 - literals
    "where w.finished_at is null and w.executor is null and w.enqueued_at is not null and s.status = 'PENDING' "
    "and s.started_at_epoch_ms < (extract(epoch from now()) - %(after)s) * 1000"
    for table in ("job", "workflow_run")
)
"""Slices that a living process claimed and never began: the answer to its claim, or the reading of what it claimed, was lost
with the database. The engine starts again only what a dead process held, so such a workflow would stand still for good."""

Enqueue = Callable[[Table, str, int, str], None]
"""``enqueue(table, id, slice, key)``: idempotent by (table, id, slice); never two of one key at once."""
Recover = Callable[[list[str]], None]
Cancel = Callable[[str], None]

log = structlog.get_logger()


class Leader:
    """Run ``loop`` in a thread of every worker; at most one of them acts."""

    def __init__(
        self, database: Database, role: str, clock: Clock, enqueue: Enqueue, recover: Recover, cancel: Cancel
    ) -> None:
        self._database = database
        self._role = role
        self._clock = clock
        self._enqueue = enqueue
        self._recover = recover
        self._cancel = cancel
        self._next_reap = 0.0
        self._next_partitions = 0.0
        self.wake = threading.Event()
        self.stopping = threading.Event()

    def loop(self) -> None:
        """Lead while the lock is ours, try for it each second while it is not; ends when ``stopping`` is set."""
        while not self.stopping.is_set():
            try:
                with psycopg.connect(
                    self._database.dsn, autocommit=True, application_name="leader", connect_timeout=10, options=SESSION
                ) as session:
                    self._lead(session)
            except Exception as exc:  # noqa: BLE001 - see the module: it never ends by itself
                _warn("leader_interrupted", exc)
                self.stopping.wait(TURN_SECONDS)

    def _lead(self, session: psycopg.Connection) -> None:
        leading = False
        while not self.stopping.is_set():
            if not leading:
                row = session.execute("select pg_try_advisory_lock(%s)", (LEADER_LOCK,)).fetchone()
                leading = bool(row and row[0])
                # What ended the leader before us, the database as a rule, may have kept the living from beating, too.
                self._next_reap = time.monotonic() + 2 * processes.BEAT_SECONDS
            else:
                session.execute("select 1")  # a cut session has lost the lock: find out before acting
            if leading:
                self.turn()
            self.wake.wait(TURN_SECONDS)
            self.wake.clear()

    def turn(self) -> None:
        """Do one turn; a step that fails is logged and leaves the others their chance."""
        now = time.monotonic()
        steps: list[Callable[[], object]] = [self._tick, self._hand_over]
        if now >= self._next_reap:
            self._next_reap = now + REAP_SECONDS
            steps.insert(0, self._reap)
        if now >= self._next_partitions:
            self._next_partitions = now + PARTITION_AGAIN_SECONDS
            steps[:0] = [self._attach_left, self._partitions]
        for step in steps:
            try:
                step()
            except Exception as exc:  # noqa: BLE001 - each step fails alone, whatever the engine below raises
                _warn("leader_step_failed", exc, step=getattr(step, "__name__", ""))

    def _tick(self) -> None:
        ticking.make_runs(self._database, self._clock.now())

    def _hand_over(self) -> None:
        with self._database.connection() as conn:
            self._hand_over_rows(conn, "job", _JOBS, ())
            self._hand_over_rows(conn, "workflow_run", _RUNS, (moves.ON_SCHEDULE_NUMBERS,))

    def _hand_over_rows(self, conn: Connection, table: Table, query: str, values: tuple[object, ...]) -> None:
        rows = conn.execute(
            f"{query} and enqueued_at is null and due_at <= now() order by due_at limit {OUTBOX_BATCH}", values
        ).fetchall()
        for work_id, number, key in rows:
            try:
                self._enqueue(table, work_id, number, key)
            except Exception as exc:  # noqa: BLE001 - one that cannot be handed over holds up no other
                _warn("not_handed_over", exc, work=work_id)
                continue
            conn.execute(
                f"update {table} set enqueued_at = now() "  # noqa: S608 - a literal
                "where id::text = %s and slices = %s and enqueued_at is null",
                (work_id, number),
            )

    def _reap(self) -> None:
        with self._database.transaction() as conn:
            dead = conn.execute(
                "select distinct executor_id from dbos.workflow_status where status = 'PENDING' and executor_id <> all(%s)",
                (processes.alive_executors(conn, "worker"),),
            ).fetchall()
            processes.forget(conn)
        if dead:
            self._recover([executor for (executor,) in dead])
        with self._database.transaction() as conn:
            lost = [slice_ for table in ("job", "workflow_run") for slice_ in self._reclaim(conn, table)]
        for name in lost:
            log.warning("work_reclaimed", action="work_reclaimed", slice=name)
            self._cancel(name)
        with self._database.connection() as conn:
            left = conn.execute(_LEFT_BEHIND, (admin.KILLED, LEAVING_SECONDS)).fetchall()
            left += conn.execute(_UNRECORDED, {"after": RECORDING_SECONDS}).fetchall()
            left += conn.execute(_UNBEGUN, {"after": BEGINNING_SECONDS}).fetchall()
        for (name,) in left:
            log.warning("slice_left_behind", action="slice_left_behind", slice=name)
            self._cancel(name)

    @staticmethod
    def _reclaim(conn: Connection, table: Table) -> list[str]:
        """Make what was lost due again as its next slice; return the engine's names of the slices that were lost."""
        rows = conn.execute(
            f"update {table} w set slices = w.slices + 1, enqueued_at = null, executor = null, due_at = now() "  # noqa: S608 - a literal
            "where finished_at is null and enqueued_at is not null and ("
            "executor is not null and greatest(beat_at, enqueued_at) < now() - make_interval(secs => %(lost)s) "
            "or exists (select from dbos.workflow_status s where s.workflow_uuid = %(table)s || ':' || w.id || ':' || w.slices "
            "and s.status in ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'))) "
            "returning %(table)s || ':' || w.id || ':' || w.slices - 1",
            {"lost": LOST_AFTER_SECONDS, "table": table},
        ).fetchall()
        return [name for (name,) in rows]

    def _attach_left(self) -> None:
        for parent in migrate.PARENTS[self._role]:
            for name in partitions.attach_left(self._database, parent):
                log.warning("partition_attached", action="partition_attached", partition=name)

    def _partitions(self) -> None:
        # Each is a transaction of its own: what one waits for holds no other up.
        with self._database.connection() as conn:
            migrate.ensure_partitions(conn, self._role, self._clock.now())
        self._next_partitions = time.monotonic() + PARTITION_SECONDS


def _warn(event: str, exc: Exception, **about: str) -> None:
    """Log a failure by its first line: the ones after it may quote rows."""
    log.warning(event, action=event, cause=said(exc)[:500], error=type(exc).__name__, **about)

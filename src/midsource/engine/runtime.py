"""The durable engine of one worker process: DBOS underneath, slices on top. The only module that imports it.

DBOS gives a queue shared by all workers and machines, never two runs of one key at once, and recovery of what a dead
process held. A queued item is one slice, named by row and slice number, so handing it over twice is handing it over once.
Known traps, all tried (design 3): stable unique executor id, pinned application version, JSON not pickle, one DBOS a
process, few queues. Engine history is kept 7 days (``history``).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import structlog
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetEnqueueOptions, SetWorkflowID

from midsource.engine.leader import Leader
from midsource.engine.slices import SliceRunner, Table
from midsource.engine.work import Works
from midsource.model.clock import Clock
from midsource.model.errors import MidsourceError, said
from midsource.store import processes
from midsource.store.budget import ENGINE_POOL
from midsource.store.database import LINE, Database, said_plainly

QUEUE = "slices"
QUEUE_POLL_SECONDS = 1.0
"""As often as the leader hands out (TURN_SECONDS). Each poll is four small transactions and 5 ms: twice a second they were
half of what an idle worker does."""
NOTIFICATION_SECONDS = 30.0
"""How often DBOS looks for messages between workflows; ours send none."""
SLICES_AT_ONCE = 6
"""Slices one worker runs at once: they wait for HTTP and the database most of their time."""
APPLICATION_VERSION = "slices-1"
"""Pinned: a slice carries only (table, id, number), so workers of two releases can share the queue."""
STOP_SECONDS = 15
"""Less than the 20 s after which the supervisor kills: the goodbye comes after it."""

log = structlog.get_logger()


def new_executor(process_name: str) -> str:
    """Return an id for this life of the process: never reused, so that a dead life can be told from a living one."""
    return f"{process_name}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Engine:
    """``launch`` starts working, ``stop`` ends it; both once a process."""

    def __init__(
        self, database: Database, *, name: str, role: str, instance: str, home: Path, clock: Clock, works: Works
    ) -> None:
        self._database = database
        self._name = name
        self._works = works
        self.executor = new_executor(name)
        self._runner = SliceRunner(database, clock, home, instance, self.executor, works)
        self._leader = Leader(database, role, clock, self._enqueue, self._recover, self._cancel)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._queued: Callable[[str, str, int], str] = self._slice

    def launch(self) -> None:
        """Register the works, launch DBOS, start leading and beating. Raises Unhealthy when the database is away."""
        logging.getLogger("dbos").setLevel(logging.WARNING)
        with said_plainly(self._database.name):
            self._register_workflows()
            with self._database.connection() as conn:
                buried = processes.bury(conn, self._name)
            self._beat()  # before any slice is taken: what a life without a beat holds is given to others
            DBOS(config=self._config())
            self._queued = self._registered_slice()
            DBOS.launch()
            DBOS.register_queue(
                QUEUE,
                worker_concurrency=SLICES_AT_ONCE,
                partition_concurrency=1,
                polling_interval_sec=QUEUE_POLL_SECONDS,
                on_conflict="always_update",
            )
            if buried:
                self._recover(buried)  # at once, not when the leader finds that they miss their beats
        for target in (self._leader.loop, self._beat_loop):
            thread = threading.Thread(target=target, name=target.__name__, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Ask bodies to leave at their next beat, wait for them (15 s at most), and say goodbye."""
        self._runner.stopping.set()
        self._leader.stopping.set()
        self._leader.wake.set()
        self._threads[0].join(timeout=1)  # leading: nothing more is handed over
        DBOS.destroy(workflow_completion_timeout_sec=STOP_SECONDS, destroy_registry=True)
        self._stopping.set()  # beating until here: what is settling now is not a dead life's
        for thread in self._threads:
            thread.join(timeout=1)
        try:
            with self._database.connection() as conn:
                processes.leave(conn, self._name, self.executor)
        except MidsourceError as exc:
            log.warning("goodbye_unsaid", action="goodbye_unsaid", cause=str(exc))

    def _config(self) -> DBOSConfig:
        return DBOSConfig(
            name="midsource",
            system_database_url=self._database.dsn.replace("postgresql://", "postgresql+psycopg://", 1),
            sys_db_pool_size=ENGINE_POOL,
            db_engine_kwargs={"connect_args": {**LINE, "application_name": self._name[:63]}},
            executor_id=self.executor,
            application_version=APPLICATION_VERSION,
            serializer=DBOSPortableJSONSerializer(),
            log_level="WARNING",
            use_listen_notify=False,
            notification_listener_polling_interval_sec=NOTIFICATION_SECONDS,
        )

    def _register_workflows(self) -> None:
        """Make the row of each technical workflow this worker knows; a schedule that an operator gave is left alone."""
        with self._database.transaction() as conn:
            for module in self._works.workflows:
                conn.execute(
                    "insert into workflow (name, schedule) values (%s, %s) on conflict (name) do update "
                    "set schedule = excluded.schedule, next_at = null "
                    "where workflow.schedule_by = '' and workflow.schedule <> excluded.schedule",
                    (module.NAME, module.SCHEDULE),
                )

    def _registered_slice(self) -> Callable[[str, str, int], str]:
        # A function, not a method: DBOS writes attributes on what it registers.
        @DBOS.workflow(name="slice")
        def queued(table: str, work_id: str, number: int) -> str:
            return self._slice(table, work_id, number)

        return queued

    def _slice(self, table: str, work_id: str, number: int) -> str:
        """Run one slice as one durable step: run again only if this process dies before it is recorded."""

        def body() -> str:
            outcome = self._runner.run("job" if table == "job" else "workflow_run", work_id, number)
            self._leader.wake.set()  # what comes next need not wait for the next turn
            return outcome

        return str(DBOS.run_step({"name": "run"}, body))

    def _enqueue(self, table: Table, work_id: str, number: int, key: str) -> None:
        with SetWorkflowID(f"{table}:{work_id}:{number}"), SetEnqueueOptions(queue_partition_key=key):
            DBOS.enqueue_workflow(QUEUE, self._queued, table, work_id, number)

    def _recover(self, executors: list[str]) -> None:
        """Put what dead executors held back into its queue."""
        DBOS._recover_pending_workflows(executors)

    def _cancel(self, slice_name: str) -> None:
        """End a slice that was lost: as long as the engine counts it as running, no other of its key begins."""
        DBOS.cancel_workflow(slice_name)

    def _beat(self) -> None:
        with self._database.connection() as conn:
            processes.beat(conn, self._name, "worker", self.executor)

    def _beat_loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self._beat()
            except Exception as exc:  # noqa: BLE001 - a life that stops beating counts as dead, whatever the cause
                log.warning("beat_missed", action="beat_missed", cause=said(exc))
            self._stopping.wait(processes.BEAT_SECONDS)

"""*cleanup*: how much slower a mid sends while `cleanup` removes a million rows beside it (ten million with `--scale 10`).

A mid that has sent for months is made by SQL: a month of the ledger, ten days of results that were pulled, and marks of
journals, which go row by row. Then the same signed delivery is sent twice, once alone and once while cleanup runs, in
turns which of them is first. Both take as many messages from the same mta processes to the same sink.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from midsource.bench.midhalf import INSTANCE, SIGNED, MidHalf, Sent, the_mid
from midsource.bench.row import Goal, Row, Runs
from midsource.bench.stage import Bench
from midsource.engine.work import Context
from midsource.model.errors import Failed
from midsource.model.ids import Month, delivery_id
from midsource.workflows import cleanup as workflow

NAME = "cleanup"
WHAT = "a delivery sent while cleanup removes rows beside it, to the same delivery sent alone"
MESSAGES = 20_000
"""Some seconds of sending, so that cleaning lies within them."""
ROWS = 1_000_000
LEDGER, RESULTS, MARKS = 0.4, 0.4, 0.2
"""How the rows are shared out: what goes by month, by day, and row by row."""
DAYS = 10
BATCH_ROWS = 5_000
MAKE_SECONDS = 900
RATE = "rate beside cleanup, to alone"
TARGET = (Goal(RATE, 0.90, ""),)
_LEDGER = """
insert into message (account_id, delivery_id, id, email, domain, state, attempts, revision, reply, message_id, data)
select %(account)s, %(delivery)s, n, 'client' || n || '@exemple' || n %% 10 || '.fr', 'exemple' || n %% 10 || '.fr', 1, 1, 2,
    '250 2.0.0 Ok: queued', md5(n::text), '{"prenom": "Client"}' from generate_series(1, %(rows)s) n
"""
_BATCHES = """
insert into feed_batch (account_id, day, rows, deliveries, folded, seq, sequenced_at)
select %(account)s, %(day)s, %(size)s, array[%(delivery)s::bigint], true, nextval('feed_seq'), %(day)s
from generate_series(1, %(batches)s) returning id
"""
_RESULTS = """
insert into outcome (account_id, day, batch_id, row, delivery_id, id, old_state, new_state, attempts, revision, event_at, reply,
    message_id, process)
select %(account)s, %(day)s, b, n, %(delivery)s, n, 6, 1, 1, 2, %(day)s, '250 2.0.0 Ok: queued', md5(n::text), 'mta-mid1'
from unnest(%(ids)s::bigint[]) b, generate_series(1, %(size)s) n
"""
_MARKS = """
insert into journal_applied (process, segment, number, applied_at)
select 'ended' || %(turn)s, 1, n, %(at)s from generate_series(1, %(rows)s) n
"""


@dataclass(slots=True)
class _Cleaning:
    """Cleanup in a thread, from ``start`` to ``join``; what it removed and how long it took."""

    context: Context
    rows: int = 0
    seconds: float = 0.0
    _problem: list[BaseException] = field(default_factory=list)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        """Wait for its end; raises Failed where it failed."""
        assert self._thread is not None
        self._thread.join()
        if self._problem:
            raise Failed(f"cleanup failed beside sending: {self._problem[0]}", "see the benchmark's folder with --keep")

    def _run(self) -> None:
        began = time.perf_counter()
        try:
            while True:
                report = workflow.run_once(self.context)
                self.rows += report.rows_written
                if report.more_after_seconds is None:
                    break
        except Exception as exc:  # noqa: BLE001 - told by ``join``
            self._problem.append(exc)
        self.seconds = time.perf_counter() - began


def run(bench: Bench) -> Row:
    """Send ``bench.runs`` pairs of deliveries."""
    mid, runs, rows = the_mid(bench), Runs(), bench.count(ROWS)
    messages = min(MESSAGES, bench.count(MESSAGES))
    mid.send(mid.receive(messages, SIGNED), messages)  # whoever is first would pay for what is made once
    for turn in range(bench.runs):
        bench.say(f"{NAME}: run {turn + 1} of {bench.runs}, {rows} old rows are made")
        made = _history(mid, turn, rows, bench.clock.now())
        first, second = (mid.receive(messages, SIGNED) for _ in range(2))
        bench.say(f"{NAME}: run {turn + 1} of {bench.runs}, sending twice")
        cleaning = _Cleaning(_context(mid))
        early = mid.send(first, messages) if turn % 2 == 0 else None
        cleaning.start()
        beside = mid.send(second, messages)
        cleaning.join()
        alone = early or mid.send(first, messages)
        if cleaning.rows < made * MARKS:
            raise Failed(f"cleanup removed {cleaning.rows} of {made} rows", "report it: the benchmark is wrong")
        runs.add("sent beside", "msg/s", beside.a_second)
        runs.add("sent alone", "msg/s", alone.a_second)
        runs.add(RATE, "", beside.a_second / alone.a_second)
        runs.add("CPU of mta and PostgreSQL, to alone", "", _cpu(beside) / _cpu(alone))
        runs.add("rows made", "", made)
        runs.add("cleanup", "s", cleaning.seconds)
        runs.add("sending", "s", beside.seconds)
    also = runs.several((RATE, "CPU of mta and PostgreSQL, to alone", "sent alone", "rows made", "cleanup", "sending"))
    setting = f"{len(mid.processes)} mta, {messages} messages of 20 kB, {rows} old rows, {bench.runs} runs"
    return Row(NAME, WHAT, runs["sent beside"], TARGET, (), also, setting, scaled=bench.scale < 1)


def _cpu(sent: Sent) -> float:
    """Return CPU seconds while a delivery was sent: PostgreSQL's hold what cleanup did meanwhile."""
    return sent.mta_cpu_seconds + sent.database_cpu_seconds


def _context(mid: MidHalf) -> Context:
    return Context(
        database=mid.database, clock=mid.bench.clock, home=mid.home, instance=INSTANCE, subject=0,
        say=lambda _level, _line: None, beat=lambda: None, progress=lambda _: None,
    )  # fmt: skip


def _history(mid: MidHalf, turn: int, rows: int, now: datetime) -> int:
    """Make what cleanup will find; return how many rows that are."""
    old = now - timedelta(days=200 + 31 * turn)
    number, account = delivery_id(old, 1), mid.account_id
    days = [(now - timedelta(days=20 + day)).date() for day in range(DAYS)]
    ledger, marks = round(rows * LEDGER), round(rows * MARKS)
    batches = max(1, round(rows * RESULTS / DAYS / BATCH_ROWS))
    size = min(BATCH_ROWS, max(1, round(rows * RESULTS / DAYS / batches)))
    with mid.database.transaction(statement_seconds=MAKE_SECONDS) as conn:
        conn.execute("select ensure_month('message', %s)", (int(str(Month.of(old))),))
        conn.execute(
            "insert into delivery (account_id, id, label, state, spec, spec_hash, started_at, valid_until, finished_at) "
            "select account_id, %s, 'old', 95, spec, spec_hash, %s, %s, %s from delivery order by id desc limit 1",
            (number, old, old, old),
        )
        conn.execute(_LEDGER, {"account": account, "delivery": number, "rows": ledger})
        for day in days:
            conn.execute("select ensure_day('outcome', %s)", (day,))
            about = {"account": account, "day": day, "delivery": number, "size": size, "batches": batches}
            ids = [row[0] for row in conn.execute(_BATCHES, about).fetchall()]
            conn.execute(_RESULTS, {**about, "ids": ids})
        for stream in ("logs", "deliveries"):
            conn.execute(
                "insert into feed_ack (account_id, stream, seq) select %s, %s, max(seq) from feed_batch "
                "on conflict (account_id, stream) do update set seq = excluded.seq",
                (account, stream),
            )
        conn.execute(_MARKS, {"turn": turn, "at": now - timedelta(days=30), "rows": marks})
    with mid.database.connection() as conn:  # as autovacuum did long ago
        conn.execute("set statement_timeout = 0")
        conn.execute("vacuum analyze message, outcome, feed_batch, journal_applied")
        conn.execute("reset statement_timeout")
    return ledger + marks + DAYS * batches * size

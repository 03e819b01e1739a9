"""*catch-up*: pointers of 2020 over years of deliveries, against a mid that can answer little, while today's mail flows.

What the field dies of (F30): every run asks for everything since 2020 and times out. Here the mid's statements are cut
at 400 ms by its own server, and a proxy cuts every answer that took more than five seconds. Meanwhile a delivery is
prepared, handed over and sent for real. Nobody helps: both workflows come to the present by themselves.

Watched each half second: the option (it may only grow), how far the log of today's delivery is behind the mid's outcomes,
the memory of the worker; and by the proxy the rows asked for of each page and the seconds of each answer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from urllib.parse import parse_qs, urlsplit

from midsource.bench import machine
from midsource.bench.lab import history
from midsource.bench.pair import Pair
from midsource.bench.row import Goal, Row, Runs
from midsource.bench.sink import light_sink
from midsource.bench.stage import Bench, wait_until
from midsource.engine import admin
from midsource.marketing import accounts, orders
from midsource.model.message import MessageState
from midsource.model.options import LAST_BROAD_LOG, LAST_DELIVERY
from midsource.policy.position import parse
from midsource.store.database import Connection, scalar
from midsource.testing.proxy import CutIfLate, Fault, FaultProxy, Seen
from midsource.wire.schema import MAX_PAGE_ROWS
from midsource.workflows import delivery_counters, delivery_logs

NAME = "catch-up"
WHAT = "pointers of 2020 over years of ledger rows, against a mid that answers little, while a delivery is sent"
DELIVERIES, ROWS, TODAY = 5_000, 2_000_000, 20_000
STATEMENT_MS = 400
CUT_SECONDS = 5.0
LOOK_SECONDS = 0.5
WHOLE_SECONDS = 1_800.0
TARGET = (
    Goal("today's results behind", 120, "s", at_most=True),
    Goal("memory of the worker", 143, "MiB", at_most=True),  # 150 MB
    Goal("steps back of the option", 0, "", at_most=True),
    Goal("rows asked for of a page", MAX_PAGE_ROWS, "", at_most=True),
)


@dataclass(slots=True)
class Watcher:
    """Looks at both halves until both workflows have arrived."""

    pair: Pair
    delivery: int = 0
    behind_seconds: float = 0.0
    steps_back: int = 0
    _last: dict[str, datetime] = field(default_factory=dict)
    _outcomes: deque[tuple[float, int]] = field(default_factory=deque)

    def look(self, here: Connection, there: Connection) -> bool:
        """Look once; True when the options are at the present and everything of today is back."""
        now = time.monotonic()
        arrived = True
        for option in (LAST_DELIVERY, LAST_BROAD_LOG):
            found = parse(
                str(scalar(here, "select value from option where name = %s", (option + accounts.DEFAULT_NAME,)))
            )
            if found < self._last.get(option, found):
                self.steps_back += 1
            self._last[option] = found
            arrived = arrived and found > self.pair.bench.clock.now() - timedelta(minutes=2)
        return self._today(here, there, now) and arrived

    def _today(self, here: Connection, there: Connection, now: float) -> bool:
        """Note for how long the mid has known more of today's delivery than the log does."""
        known = int(
            scalar(there, "select count(*) from message where delivery_id = %s and state <> 6", (self.delivery,))
        )
        logged = int(
            scalar(
                here, "select coalesce(sum(n), 0) from broad_log_total where delivery_id = %s and state = %s",
                (self.delivery, MessageState.SENT),
            )
        )  # fmt: skip
        if not self._outcomes or known > self._outcomes[-1][1]:
            self._outcomes.append((now, known))
        while self._outcomes and self._outcomes[0][1] <= logged:
            self._outcomes.popleft()
        if self._outcomes:
            self.behind_seconds = max(self.behind_seconds, now - self._outcomes[0][0])
        return bool(self.delivery) and logged >= known > 0 and not self._outcomes


def run(bench: Bench) -> Row:
    """Do it once a run, each on a pair of its own."""
    runs = Runs()
    for turn in range(1, bench.runs + 1):
        _one(bench, runs, turn)
    return Row(
        NAME, WHAT, runs["a million rows"], TARGET, (),
        runs.several((*[goal.measure for goal in TARGET], "longest answer", "answers cut", "seconds in all")),
        f"{bench.count(DELIVERIES)} deliveries, {bench.count(ROWS)} rows since 2020, mid's statements end after "
        f"{STATEMENT_MS} ms, answers after {CUT_SECONDS:.0f} s, {bench.count(TODAY)} messages sent meanwhile, {bench.runs} runs",
        scaled=bench.scale < 1,
    )  # fmt: skip


def _one(bench: Bench, runs: Runs, turn: int) -> None:
    sink = light_sink(bench)
    pair = Pair.make(bench, f"years{turn}", smarthost=sink.address, mid_options=f"-c statement_timeout={STATEMENT_MS}")
    told = history.History(bench.count(DELIVERIES), bench.count(ROWS))
    written = history.make(
        pair.marketing, pair.mid, accounts.DEFAULT_NAME, pair.mid_account, told, bench.clock.now(),
        lambda line: bench.say(f"{NAME}: run {turn} of {bench.runs}, {line}"),
    )  # fmt: skip
    pair.add_people(bench.count(TODAY))
    with _Slow(pair.web_port) as slow, pair.marketing.connection() as here, pair.mid.connection() as there:
        pair.link_to(slow.proxy.url)
        machine.forget_peak(pair.worker.pid)
        began, watcher = time.monotonic(), Watcher(pair)
        for module in (delivery_counters, delivery_logs):
            admin.run_now(here, module.NAME, "bench")
        number, _, _ = pair.campaign()
        with here.transaction():
            orders.order(here, number, "start", "bench", bench.clock.now())
        watcher.delivery = number
        bench.say(f"{NAME}: run {turn} of {bench.runs}, catching up with {written} rows")
        wait_until(lambda: watcher.look(here, there), "the present", WHOLE_SECONDS, *pair.processes, every=LOOK_SECONDS)
        seconds = time.monotonic() - began
    runs.add("a million rows", "s", seconds / written * 1_000_000)
    runs.add("seconds in all", "s", seconds)
    runs.add("today's results behind", "s", watcher.behind_seconds)
    runs.add("memory of the worker", "MiB", machine.peak_mib(pair.worker.pid))
    runs.add("steps back of the option", "", float(watcher.steps_back))
    runs.add("rows asked for of a page", "", float(slow.most_rows))
    runs.add("longest answer", "s", slow.longest)
    runs.add("answers cut", "", float(slow.cut))


class _Slow:
    """Stands before the mid, cuts each answer that took too long, and remembers what was asked. Use as a context."""

    def __init__(self, port: int) -> None:
        self.proxy = FaultProxy(port, self._judge)
        self.most_rows = 0
        self.longest = 0.0
        self.cut = 0
        self._lock = threading.Lock()

    def __enter__(self) -> _Slow:
        self.proxy.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.__exit__()

    def _judge(self, seen: Seen) -> Fault:
        query = parse_qs(urlsplit(seen.path).query)
        with self._lock:
            self.most_rows = max(self.most_rows, int(query.get("limit", ["0"])[0]))
        waits = float(query.get("wait", ["0"])[0])
        return CutIfLate(CUT_SECONDS + waits, partial(self._note, waits))

    def _note(self, waits: float, seconds: float) -> None:
        with self._lock:
            self.longest = max(self.longest, seconds - waits)
            self.cut += seconds - waits > CUT_SECONDS

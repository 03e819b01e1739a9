"""*memory*: one `mta` process with 500 connections open and a million messages waiting.

The sink answers late, so that the connections stay busy; what is read is the most resident memory in windows of some
seconds while all of them send. What waits is in PostgreSQL, so a million must cost the process what a thousand does.
"""

from __future__ import annotations

import time

from midsource.bench import machine
from midsource.bench.midhalf import UNSIGNED, MidHalf
from midsource.bench.row import Goal, Row, Runs
from midsource.bench.sink import light_sink
from midsource.bench.stage import Bench, stop, wait_until
from midsource.mid import orders
from midsource.model.errors import Failed

NAME = "memory"
WHAT = "one mta process, 500 connections, 1 000 000 messages pending"
MESSAGES = 1_000_000
CONNECTIONS = 500
DESTINATIONS = 20
EACH = 25
"""Connections to a destination: with twenty destinations they are 500, the most of a process."""
DELAY_MS = 500
OPEN_SECONDS = 90.0
WINDOW_SECONDS = 5.0
TARGET = (Goal("memory", 150, "MiB", at_most=True),)


def run(bench: Bench) -> Row:
    """Read the memory in ``bench.runs`` windows of the same sending."""
    runs, count = Runs(), bench.count(MESSAGES)
    sink = light_sink(bench, DELAY_MS)
    mid = MidHalf.make(bench, sink, "memory", connections=EACH)
    bench.say(f"{NAME}: {count} messages come in")
    number = mid.receive(count, UNSIGNED, destinations=DESTINATIONS)
    mid.start_mtas(1)
    process = mid.processes[0]
    orders.command(mid.database, mid.account_id, number, "start", bench.clock.now())
    bench.say(f"{NAME}: connections open")
    wait_until(lambda: sink.counted().open >= CONNECTIONS * 0.96, "500 connections", OPEN_SECONDS, process, every=0.2)
    for turn in range(bench.runs):
        bench.say(f"{NAME}: window {turn + 1} of {bench.runs}")
        machine.forget_peak(process.pid)
        before = sink.counted()
        time.sleep(WINDOW_SECONDS)
        process.must_run()
        after = sink.counted()
        if after.messages == before.messages:
            raise Failed("nothing was sent while memory was measured", f"see {process.log}")
        runs.add("memory", "MiB", machine.peak_mib(process.pid))
        runs.add("proportional memory", "MiB", machine.pss_mib([process.pid]))
        runs.add("connections", "open", after.open)
        runs.add("sent meanwhile", "msg/s", (after.messages - before.messages) / WINDOW_SECONDS)
    stop(process.child)
    return Row(
        NAME, WHAT, runs["memory"], TARGET, (), runs.several(("proportional memory", "connections", "sent meanwhile")),
        f"{count} messages to {DESTINATIONS} destinations, the sink answers after {DELAY_MS} ms, "
        f"{bench.runs} windows of {WINDOW_SECONDS:.0f} s",
        scaled=bench.scale < 1,
    )  # fmt: skip

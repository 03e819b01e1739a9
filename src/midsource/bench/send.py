"""*send*: from ledger rows to durable outcomes, personalised, tracked, RSA-2048 signed, over pipelined SMTP.

Beside it: `openssl speed -multi <cores> rsa2048`, before each run. Whoever signs with RSA-2048 on this machine
and does nothing else is that fast, so the ratio says what everything else costs.
"""

from __future__ import annotations

import os

from midsource.bench import limits
from midsource.bench.midhalf import CONNECTIONS, DESTINATIONS, SIGNED, MidHalf, Sent, the_mid
from midsource.bench.row import Beside, Goal, Row, Runs
from midsource.bench.stage import Bench

NAME = "send"
WHAT = "ledger rows → leases → rendered, tracked, RSA-2048 signed → pipelined SMTP → outcome durable in PostgreSQL"
MESSAGES = 40_000
TARGET = (
    Goal("ratio", 0.60, "of openssl"),
    Goal("messages", 4_000, "msg/s", informs=True),
)


def run(bench: Bench) -> Row:
    """Measure ``bench.runs`` deliveries."""
    mid, runs, count = the_mid(bench), Runs(), bench.count(MESSAGES)
    for turn in range(bench.runs):
        bench.say(f"{NAME}: run {turn + 1} of {bench.runs}, {count} messages")
        number = mid.receive(count, SIGNED)
        signs = limits.rsa_signs_a_second(os.cpu_count() or 1)
        sent = mid.send(number, count)
        note(runs, sent)
        if signs is not None:
            runs.add("RSA-2048 signatures", "a second", signs)
            runs.add("ratio", "", sent.messages / sent.seconds / signs)
    beside = Beside("openssl speed rsa2048", None)
    if "ratio" in runs:
        beside = Beside(beside.name, runs["RSA-2048 signatures"], runs["ratio"])
    return Row(
        NAME, WHAT, runs["messages"], TARGET, (beside,), runs.several(ALSO), setting(mid, bench), scaled=bench.scale < 1
    )


ALSO = ("mta CPU", "PostgreSQL CPU", "busy cores", "message on the wire")


def note(runs: Runs, sent: Sent) -> None:
    """Keep what one delivery took."""
    runs.add("messages", "msg/s", sent.messages / sent.seconds)
    runs.add("mta CPU", "s per 1 000", sent.mta_cpu_seconds / sent.messages * 1_000)
    runs.add("PostgreSQL CPU", "s per 1 000", sent.database_cpu_seconds / sent.messages * 1_000)
    runs.add("busy cores", "", sent.busy_cores)
    runs.add("message on the wire", "kB", sent.wire_bytes / 1_000)


def setting(mid: MidHalf, bench: Bench) -> str:
    """Say what ran."""
    processes = f"{len(mid.processes)} mta process{'es' if len(mid.processes) > 1 else ''}"
    return f"{processes}, {DESTINATIONS} destinations × {CONNECTIONS} connections, light sink, one PostgreSQL, {bench.runs} runs"

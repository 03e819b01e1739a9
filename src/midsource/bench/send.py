"""*send*: from ledger rows to durable outcomes, personalised, tracked, RSA-2048 signed, over pipelined SMTP.

Beside it: `openssl speed` for RSA-2048 with a process for each core, before each run: whoever signs on this machine and does nothing
else is that fast, so the ratio says what everything else costs. And the naive Python sender, a process for each core.
"""

from __future__ import annotations

import os

from midsource.bench import limits
from midsource.bench.midhalf import CONNECTIONS, DESTINATIONS, SIGNED, MidHalf, Sent, the_mid
from midsource.bench.row import Goal, Row, Runs, ratio_to
from midsource.bench.stage import Bench

NAME = "send"
WHAT = "ledger rows → leases → rendered, tracked, RSA-2048 signed → pipelined SMTP → outcome durable in PostgreSQL"
MESSAGES = 80_000
"""Some fifteen seconds: the first and the last half second, when not everybody is busy, weigh little."""
NAIVE_MESSAGES = 600
OPENSSL, NAIVE = "openssl speed rsa2048", "naive Python, signed"
TARGET = (
    Goal(ratio_to(OPENSSL), 0.60, "", ceiling=1.0),
    Goal(ratio_to(NAIVE), 25, "times"),
    Goal("messages", 4_000, "msg/s", informs=True),
)
ALSO = ("mta CPU", "PostgreSQL CPU", "sink CPU", "busy cores", "message on the wire")


def run(bench: Bench) -> Row:
    """Measure ``bench.runs`` deliveries."""
    mid, runs, count = the_mid(bench), Runs(), bench.count(MESSAGES)
    for turn in range(bench.runs):
        bench.say(f"{NAME}: run {turn + 1} of {bench.runs}, {count} messages")
        number = mid.receive(count, SIGNED)
        naive = limits.naive_a_second(bench.folder, mid.sink.port, bench.count(NAIVE_MESSAGES))
        signs = limits.rsa_signs_a_second(os.cpu_count() or 1)
        sent = mid.send(number, count)
        note(runs, sent)
        if signs is not None:
            runs.against(OPENSSL, "a second", signs, sent.a_second / signs)
        if naive is not None:
            runs.against(NAIVE, "msg/s", naive, sent.a_second / naive)
    beside = (
        runs.beside(OPENSSL),
        runs.beside(NAIVE, "aiosmtplib and dkimpy are not installed: pip install 'midsource[bench]'"),
    )
    return Row(
        NAME, WHAT, runs["messages"], TARGET, beside, runs.several(ALSO), setting(mid, bench), scaled=bench.scale < 1
    )  # fmt: skip


def note(runs: Runs, sent: Sent) -> None:
    """Keep what one delivery took."""
    runs.add("messages", "msg/s", sent.a_second)
    runs.add("mta CPU", "s per 1 000", sent.mta_cpu_seconds / sent.messages * 1_000)
    runs.add("PostgreSQL CPU", "s per 1 000", sent.database_cpu_seconds / sent.messages * 1_000)
    runs.add("sink CPU", "s per 1 000", sent.sink_cpu_seconds / sent.messages * 1_000)
    runs.add("busy cores", "", sent.busy_cores)
    runs.add("message on the wire", "kB", sent.wire_bytes / 1_000)


def setting(mid: MidHalf, bench: Bench) -> str:
    """Say what ran."""
    processes = f"{len(mid.processes)} mta process{'es' if len(mid.processes) > 1 else ''}"
    return f"{processes}, {DESTINATIONS} destinations × {CONNECTIONS} connections, light sink, one PostgreSQL, {bench.runs} runs"

"""*send-unsigned*: the same delivery from a domain without a key, which shows what is left when RSA is not the limit.

Beside it: Postfix's `smtp-source` into the same sink, a C program that sends one message again and again and keeps nothing.
"""

from __future__ import annotations

from midsource.bench import limits, send
from midsource.bench.midhalf import CONNECTIONS, DESTINATIONS, UNSIGNED, the_mid
from midsource.bench.row import Beside, Goal, Row, Runs
from midsource.bench.stage import Bench

NAME = "send-unsigned"
WHAT = "the same without DKIM"
MESSAGES = 60_000
SOURCE_MESSAGES = 20_000
TARGET = (Goal("messages", 15_000, "msg/s"),)


def run(bench: Bench) -> Row:
    """Measure ``bench.runs`` deliveries; the row *cpu* uses the same ones."""
    runs, mid = measured(bench), the_mid(bench)
    beside = Beside("smtp-source into the same sink", None)
    if "ratio" in runs:
        beside = Beside(beside.name, runs["smtp-source"], runs["ratio"])
    return Row(
        NAME, WHAT, runs["messages"], TARGET, (beside,), runs.several(send.ALSO), send.setting(mid, bench),
        scaled=bench.scale < 1,
    )  # fmt: skip


def measured(bench: Bench) -> Runs:
    """Return what the runs took, measured once for all rows."""

    def measure() -> Runs:
        mid, runs, count = the_mid(bench), Runs(), bench.count(MESSAGES)
        for turn in range(bench.runs):
            bench.say(f"{NAME}: run {turn + 1} of {bench.runs}, {count} messages")
            number = mid.receive(count, UNSIGNED)
            source = limits.smtp_source(mid.sink, bench.count(SOURCE_MESSAGES), sessions=DESTINATIONS * CONNECTIONS)
            sent = mid.send(number, count)
            send.note(runs, sent)
            if source is not None:
                runs.add("smtp-source", "msg/s", source)
                runs.add("ratio", "", sent.messages / sent.seconds / source)
        return runs

    return bench.once("unsigned runs", measure)

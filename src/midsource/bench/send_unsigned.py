"""*send-unsigned*: the same delivery from a domain without a key, which shows what is left when RSA is not the limit.

Beside it: Postfix's `smtp-source` into the same sink, a C program that sends one message again and again and keeps
nothing; and Postfix itself, a private instance that relays what `smtp-source` hands in, unsigned and not personalised.
"""

from __future__ import annotations

from midsource.bench import limits, postfix, send
from midsource.bench.midhalf import CONNECTIONS, DESTINATIONS, UNSIGNED, the_mid
from midsource.bench.row import Goal, Row, Runs, ratio_to
from midsource.bench.stage import Bench

NAME = "send-unsigned"
WHAT = "the same without DKIM"
MESSAGES = 200_000
"""Some fifteen seconds, as the signed ones."""
SOURCE_MESSAGES = 20_000
POSTFIX_MESSAGES = 2_000
SOURCE, POSTFIX = "smtp-source, one message again and again", "Postfix relaying, unsigned"
TARGET = (Goal("messages", 15_000, "msg/s"), Goal(ratio_to(POSTFIX), 20, "times"))


def run(bench: Bench) -> Row:
    """Measure ``bench.runs`` deliveries; the row *cpu* uses the same ones."""
    runs, mid = measured(bench), the_mid(bench)
    beside = (runs.beside(SOURCE), runs.beside(POSTFIX, postfix.why_not()))
    return Row(
        NAME, WHAT, runs["messages"], TARGET, beside, runs.several(send.ALSO), send.setting(mid, bench),
        scaled=bench.scale < 1,
    )  # fmt: skip


def measured(bench: Bench) -> Runs:
    """Return what the runs took, measured once for all rows."""

    def measure() -> Runs:
        mid, runs, count = the_mid(bench), Runs(), bench.count(MESSAGES)
        peer = None if postfix.why_not() else postfix.Postfix(bench, mid.sink)
        for turn in range(bench.runs):
            bench.say(f"{NAME}: run {turn + 1} of {bench.runs}, {count} messages")
            number = mid.receive(count, UNSIGNED)
            source = limits.smtp_source(
                mid.sink.address, bench.count(SOURCE_MESSAGES), sessions=DESTINATIONS * CONNECTIONS
            )
            relayed = peer.relayed_a_second(bench.count(POSTFIX_MESSAGES)) if peer else None
            sent = mid.send(number, count)
            send.note(runs, sent)
            if source is not None:
                runs.against(SOURCE, "msg/s", source, sent.a_second / source)
            if relayed is not None:
                runs.against(POSTFIX, "msg/s", relayed, sent.a_second / relayed)
        return runs

    return bench.once("unsigned runs", measure)

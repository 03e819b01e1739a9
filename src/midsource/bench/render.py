"""*render*: one personalised newsletter from a ledger row to the wire form, ready to be signed, in one thread.

What an mta does for each message: values decoded, links and identity made, the skeleton filled, headers written. In
CPU time of the thread, which a busy machine changes least. Beside it: joining the same bytes from two pieces, which no
way of making the message can undercut.
"""

from __future__ import annotations

import time

import msgspec

from midsource.bench import newsletter
from midsource.bench.midhalf import UNSIGNED, spec_of
from midsource.bench.row import Goal, Row, Runs
from midsource.bench.stage import Bench
from midsource.mid.dispatch import Delivery, Message
from midsource.mid.render import Rendered, Tokens, prepare
from midsource.mid.render import render as render_batch
from midsource.model.delivery import DeliveryState
from midsource.model.errors import Failed
from midsource.model.ids import delivery_id
from midsource.security.keys import HomeKey

NAME = "render"
WHAT = "one personalised 20 kB message, wire form ready to sign"
MESSAGES = 10_000
BATCH = 50
COPYING = "copying its bytes"
TARGET = (Goal("a message", 40, "µs", at_most=True),)


def run(bench: Bench) -> Row:
    """Render ``bench.runs`` times as many different messages as one delivery has."""
    count, runs, now = bench.count(MESSAGES), Runs(), bench.clock.now()
    number = delivery_id(now, 1)
    row = Delivery(int(DeliveryState.IN_PROGRESS), msgspec.json.encode(spec_of(number, UNSIGNED)).decode(), None)
    prepared, tokens = prepare((1, number), row, lambda _: ()), Tokens.of(HomeKey(bytes(32)))
    batches = [
        [message(first + offset) for offset in range(min(BATCH, count - first))] for first in range(0, count, BATCH)
    ]
    for turn in range(bench.runs):
        bench.say(f"{NAME}: run {turn + 1} of {bench.runs}, {count} messages")
        began, size = time.thread_time(), 0
        for batch in batches:
            for made in render_batch(prepared, batch, tokens, now):
                if not isinstance(made, Rendered):
                    raise Failed(f"the newsletter cannot be rendered ({made.why})", "report it")
                size += len(made.wire)
        seconds = time.thread_time() - began
        least = copied_seconds(size // count, count)
        runs.add("a message", "µs", seconds / count * 1e6)
        runs.against(COPYING, "µs", least / count * 1e6, least / seconds)
        runs.add("message", "kB", size / count / 1_000)
    return Row(
        NAME, WHAT, runs["a message"], TARGET, (runs.beside(COPYING),), runs.several(("message",)),
        f"one thread, {count} different messages in batches of {BATCH}, {bench.runs} runs",
    )  # fmt: skip


def message(number: int) -> Message:
    """Return a ledger row that waits, as dispatch reads it."""
    data = newsletter.person(number)
    return Message(number + 1, data["email"], msgspec.json.encode(data).decode(), 0)


def copied_seconds(size: int, count: int) -> float:
    """Return how long copying ``size`` bytes takes, ``count`` times: what no way of making the message can undercut."""
    half = bytes(size // 2)
    began = time.thread_time()
    for _ in range(count):
        b"".join((half, half))
    return time.thread_time() - began

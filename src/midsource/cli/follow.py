"""Follow one delivery with live progress: what `--wait` and the demo show, read from the tables ten times a second or less."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from midsource.cli.output import err
from midsource.engine import jobs
from midsource.marketing import deliveries, totals
from midsource.marketing.deliveries import Delivery
from midsource.marketing.preparation import REMEDY, PreparationFailed
from midsource.model.delivery import DeliveryState
from midsource.model.errors import Failed, NotFound, UserError
from midsource.model.message import MessageState
from midsource.store.database import Connection, Database

POLL_SECONDS = 0.25
WAIT_SECONDS = 86_400
"""A day: who waits longer looks again; nothing is stopped by not waiting."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A delivery at one moment: its row, messages by state (from the totals), and the newest job about it."""

    delivery: Delivery
    counts: dict[MessageState, int]
    job: jobs.Job | None

    @property
    def state(self) -> DeliveryState:
        """The delivery's state."""
        return DeliveryState(self.delivery.state)

    @property
    def open_messages(self) -> int:
        """Messages whose log has not come to an end: pending or deferred."""
        return self.counts.get(MessageState.PENDING, 0) + self.counts.get(MessageState.DEFERRED, 0)

    @property
    def is_prepared(self) -> bool:
        """Whether the hand-over is finalised."""
        return self.state >= DeliveryState.READY and self.state is not DeliveryState.PREPARATION_FAILED

    @property
    def is_over(self) -> bool:
        """Whether the mid is through and every result is in the log."""
        return self.state.is_final and self.open_messages == 0


def read(conn: Connection, delivery_id: int) -> Progress:
    """Read the progress of a delivery; raises NotFound."""
    counts = totals.by_state(conn, delivery_id)
    newest = jobs.of_subject(conn, delivery_id, 1)
    return Progress(deliveries.get(conn, delivery_id), counts, newest[0] if newest else None)


def follow(database: Database, delivery_id: int, until: Callable[[Progress], bool]) -> Progress:
    """Show progress until ``until`` holds; raises Failed when preparation or a job ends badly on the way."""
    deadline = time.monotonic() + WAIT_SECONDS
    with Live(console=err, refresh_per_second=4, transient=True) as live, database.connection() as conn:
        while True:
            now = read(conn, delivery_id)
            live.update(render(now))
            if until(now):
                return now
            _raise_if_ended(now)
            if time.monotonic() > deadline:
                raise Failed(f"delivery {delivery_id} is still {now.state.label}", "it goes on; look again later")
            time.sleep(POLL_SECONDS)


def _raise_if_ended(now: Progress) -> None:
    number = now.delivery.id
    if now.state in (DeliveryState.PREPARATION_FAILED, DeliveryState.FAILED):
        cause = now.delivery.error.rstrip(".") or "see `midsource delivery show`"
        again = now.state is DeliveryState.PREPARATION_FAILED
        remedy = REMEDY if again else ""
        kind = PreparationFailed if again else Failed
        raise kind(f"delivery {number}: {now.state.label}: {cause}", remedy)
    if now.job and now.job.outcome in ("failed", "aborted"):
        raise Failed(f"delivery {number}: {now.job.kind} {now.job.outcome}", now.job.error.rstrip("."))


def render(now: Progress) -> Group:
    """Return the picture of one moment: state, phase under way, bar of messages, and the figures beside it."""
    total = max(1, now.delivery.to_deliver or 0)
    done = sum(now.counts.get(state, 0) for state in (MessageState.SENT, MessageState.FAILED, MessageState.CANCELLED))
    head = Text(f"{now.delivery.label}: {now.state.label}", style="bold")
    parts: list[Any] = [head]
    phase = phase_line(now.job)
    if phase:
        parts.append(Text(phase, style="dim"))
    if now.is_prepared:
        figures = Table.grid(padding=(0, 2))
        shown = [state for state in MessageState if now.counts.get(state)]
        figures.add_row(*[Text(f"{state.label} {now.counts[state]}") for state in shown])
        parts += [ProgressBar(total=total, completed=min(done, total), width=60), figures]
    return Group(*parts)


def phase_line(job: jobs.Job | None) -> str:
    """Say what the newest job is doing, or why it waits."""
    if job is None or job.outcome is not None:
        return ""
    if job.error:
        return f"{job.kind}: {job.error}"
    progress = job.progress
    if "of" in progress:
        return f"{progress.get('phase', job.kind)}: {progress.get('done', 0)} of {progress['of']} {progress.get('unit', '')}"
    return job.kind


def resolve(conn: Connection, number: str) -> Delivery:
    """Return the delivery of this number, or for `last` the newest that is no proof. Raises NotFound, UserError."""
    if number == "last":
        newest = [found for found in deliveries.latest(conn) if found.proof_of is None]
        if not newest:
            raise NotFound("there is no delivery yet", "create one with `midsource delivery create --file`")
        return newest[0]
    if not number.isascii() or not number.isdigit() or len(number) > 18:
        raise UserError(f"{number!r} is no delivery number", "see `midsource delivery list`, or say `last`")
    return deliveries.get(conn, int(number))

"""A delivery in figures, pure: what the mid counted, what the delivery log says, and the bar that shows it.

The mid's counters lead (they come first and are complete); before it has reported, everything to send is pending. *To send*
is what the mid accepted, or will be given; *processed* is sent plus failed, as the field counts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from midsource.model.delivery import DeliveryState
from midsource.model.message import MessageState

SHOWN = (
    MessageState.SENT,
    MessageState.FAILED,
    MessageState.DEFERRED,
    MessageState.UNCERTAIN,
    MessageState.CANCELLED,
    MessageState.PENDING,
)
"""States of messages in the order of the bar: what is over first, what waits last."""
WIDTH = 1_000
"""Units of the bar's drawing."""
LEAST = 4
"""Units that a state with any message gets: one failure of a million must be seen."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the bar, in units of WIDTH."""

    name: str
    x: int
    width: int


@dataclass(frozen=True, slots=True)
class Figures:
    """How many messages stand where. ``as_of`` None: the mid has not reported."""

    to_send: int
    counts: Mapping[MessageState, int]
    as_of: datetime | None

    @property
    def processed(self) -> int:
        """Sent and failed."""
        return self.counts[MessageState.SENT] + self.counts[MessageState.FAILED]

    @property
    def rows(self) -> list[tuple[MessageState, int]]:
        """States and counts in the order of the bar."""
        return [(state, self.counts[state]) for state in SHOWN]

    def bar(self) -> list[Segment]:
        """Return the pieces of the bar, which fill it together; none where nothing is to send."""
        present = [(state.label, n) for state, n in self.rows if n > 0]
        whole = sum(n for _, n in present)
        spare = WIDTH - LEAST * len(present)
        segments, x, seen = [], 0, 0
        for index, (name, n) in enumerate(present, start=1):
            seen += n
            end = LEAST * index + round(spare * seen / whole)
            segments.append(Segment(name, x, end - x))
            x = end
        return segments


def figures_of(
    *, state: int, to_deliver: int | None, handed_over: int | None, figures: Mapping[str, int], as_of: datetime | None
) -> Figures:
    """Return the figures of a delivery from its row. ``figures`` are by the words of message states."""
    to_send = (handed_over if handed_over is not None else to_deliver) or 0
    counts = dict.fromkeys(SHOWN, 0)
    if as_of is not None:
        counts |= {message: max(0, figures.get(message.label, 0)) for message in SHOWN}
        to_send = max(to_send, sum(counts.values()))
    else:
        gone = DeliveryState(state) is DeliveryState.STOPPED
        counts[MessageState.CANCELLED if gone else MessageState.PENDING] = to_send
    return Figures(to_send, counts, as_of)


def behind(figures: Figures, log: Mapping[MessageState, int]) -> int:
    """Return how many messages the mid has finished with, as far as counters say, and the delivery log does not know of."""
    if figures.as_of is None:
        return 0
    over = (MessageState.SENT, MessageState.FAILED, MessageState.CANCELLED)
    return max(0, sum(figures.counts[state] for state in over) - sum(log.get(state, 0) for state in over))

"""Where the messages of a delivery wait, and for what: said alike by ``delivery explain`` and by the console.

A delivery as a whole waits for an order, a date, the hand-over, the link or the end of a pause: ``causes``. Single
messages wait at their domain: ``groups`` counts them by domain, state and reason from the totals, and adds what that domain
last answered and when it is tried again, from a sample of the rows. Nothing here reads a whole log: at most SHOWN groups
and SAMPLED rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from midsource.marketing import log_search
from midsource.model.delivery import DeliveryState
from midsource.model.message import MessageState
from midsource.store.database import Connection

SHOWN = 15
SAMPLED = 500
"""Deferred rows looked at for what their domains answered: some 5 ms."""
STATES = (MessageState.PENDING, MessageState.DEFERRED, MessageState.UNCERTAIN)
S = DeliveryState


class Cause(StrEnum):
    """Why a delivery as a whole waits."""

    NOT_PREPARED = "not_prepared"
    NOT_HANDED_OVER = "not_handed_over"
    NOT_ORDERED = "not_ordered"
    CONTACT_DATE = "contact_date"
    ORDER_UNCONFIRMED = "order_unconfirmed"
    PAUSED = "paused"
    TURN = "turn"
    """The mid sends it: what waits has its turn at its destination's rate and connections."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A cause with what its sentence names; ``at`` and ``text`` where it has them."""

    cause: Cause
    done: int = 0
    of: int = 0
    at: datetime | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Messages of one domain in one state for one reason. ``next_at``: when the first of a sample is tried again."""

    domain: str
    state: MessageState
    reason: int
    n: int
    reply: str = ""
    next_at: datetime | None = None


class Waiting(Protocol):
    """What is asked of a delivery: its row, or as much of it as a page reads."""

    @property
    def id(self) -> int: ...  # noqa: D102 - the columns of `delivery`
    @property
    def state(self) -> int: ...  # noqa: D102
    @property
    def account(self) -> str: ...  # noqa: D102
    @property
    def ordered(self) -> str | None: ...  # noqa: D102
    @property
    def ordered_at(self) -> datetime | None: ...  # noqa: D102
    @property
    def contact_at(self) -> datetime | None: ...  # noqa: D102
    @property
    def is_unconfirmed(self) -> bool: ...  # noqa: D102
    @property
    def targeted(self) -> int | None: ...  # noqa: D102
    @property
    def retry_period_seconds(self) -> int: ...  # noqa: D102


def causes(delivery: Waiting, parts: tuple[int, int], now: datetime) -> list[Wait]:
    """Return why the delivery as a whole waits, what comes first first; nothing once it has ended. ``parts``: (taken, all)."""
    state = S(delivery.state)
    if state.is_final:
        return []
    found: list[Wait] = []
    taken, all_ = parts
    if state in (S.EDITED, S.TARGET_READY, S.PERSONALISATION, S.PREPARATION_FAILED):
        found.append(Wait(Cause.NOT_PREPARED))
    elif taken < all_ or state is S.MESSAGE_FINALISED:
        found.append(Wait(Cause.NOT_HANDED_OVER, taken, all_, text=delivery.account))
    if delivery.is_unconfirmed:
        starts_later = delivery.ordered == "start" and delivery.contact_at is not None and delivery.contact_at > now
        found.append(
            Wait(Cause.CONTACT_DATE, at=delivery.contact_at)
            if starts_later
            else Wait(Cause.ORDER_UNCONFIRMED, at=delivery.ordered_at, text=delivery.ordered or "")
        )
    elif state is S.READY:
        found.append(Wait(Cause.NOT_ORDERED))
    if state in (S.PAUSE_REQUESTED, S.PAUSING, S.PAUSED):
        found.append(Wait(Cause.PAUSED))
    elif state.sends and not found:
        found.append(Wait(Cause.TURN, text=delivery.account))
    return found


def parts_of(conn: Connection, deliveries: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Return of each delivery how many of its parts the mid has taken, and how many there are."""
    rows = conn.execute(
        "select delivery_id, count(*) filter (where state = 'acknowledged'), count(*) from upload_part "
        "where delivery_id = any(%s) and state <> 'split' group by delivery_id",
        (list(deliveries),),
    ).fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}


def said(wait: Wait) -> str:
    """Say a cause in the product's own words."""
    at = "" if wait.at is None else f"{wait.at:%Y-%m-%d %H:%M:%S} UTC"
    return {
        Cause.NOT_PREPARED: "It is not prepared yet.",
        Cause.NOT_HANDED_OVER: f"{wait.of - wait.done} of {wait.of} parts are not yet taken by {wait.text}.",
        Cause.NOT_ORDERED: "Nobody has ordered to send it.",
        Cause.CONTACT_DATE: f"It waits for its contact date, {at}.",
        Cause.ORDER_UNCONFIRMED: f"The order to {wait.text} of {at} is not confirmed yet: the link is tried again.",
        Cause.PAUSED: "It is paused: nothing is sent until it is resumed.",
        Cause.TURN: f"{wait.text} is sending it: what is pending waits for its turn at its destination's rate.",
    }[wait.cause]


def groups(conn: Connection, delivery: Waiting, states: Sequence[MessageState] = STATES) -> list[Group]:
    """Return where messages in these states wait, the largest first."""
    rows = conn.execute(
        "select domain, state, reason, n from broad_log_total where delivery_id = %s and state = any(%s) and n > 0 "
        "order by n desc, domain, state, reason limit %s",
        (delivery.id, [int(state) for state in states], SHOWN),
    ).fetchall()
    found = [Group(domain, MessageState(state), reason, n) for domain, state, reason, n in rows]
    return _with_answers(conn, delivery, found)


def _with_answers(conn: Connection, delivery: Waiting, found: Sequence[Group]) -> list[Group]:
    """Add what each domain last answered, and when it is tried again, from a sample of the deferred rows."""
    if not any(group.state is MessageState.DEFERRED for group in found):
        return list(found)
    rows = log_search.sample(conn, delivery.id, delivery.targeted or 0, MessageState.DEFERRED, SAMPLED)
    answers: dict[tuple[str, int], tuple[datetime, datetime, str]] = {}
    for row in rows:
        first, last, reply = answers.get((row.domain, row.reason), (row.event_at, row.event_at, row.reply))
        if row.event_at >= last:
            last, reply = row.event_at, row.reply
        answers[row.domain, row.reason] = (min(first, row.event_at), last, reply)
    period = timedelta(seconds=delivery.retry_period_seconds)
    return [
        Group(group.domain, group.state, group.reason, group.n, answer[2], answer[0] + period)
        if group.state is MessageState.DEFERRED and (answer := answers.get((group.domain, group.reason)))
        else group
        for group in found
    ]

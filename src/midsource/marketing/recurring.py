"""Deliveries that recur: begun, shown, and the delivery that each tick makes.

A recurring delivery is never sent itself. *Send* begins it: from then on each tick of its schedule makes a copy under its
label and the date, which is sent at once, is a delivery like any other, and may be stopped alone. *Stop* ends it and leaves
what it made. What a tick does is decided in policy/occurrences.py; the copy, its order and the next tick are one
transaction, so a crash makes a tick neither lost nor twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from midsource.marketing import deliveries, orders
from midsource.marketing.deliveries import Delivery
from midsource.model.clock import Clock
from midsource.model.delivery import FINAL
from midsource.policy.occurrences import decide, label_of
from midsource.store.database import Connection, scalar

BY = "deliveryMgt"
"""Who orders what a tick made."""
DUE_AT_ONCE = 50
SHOWN = 50
_COPIED = (
    "brand", "template", "account", "subject", "html", "text", "from_name", "from_address", "reply_to", "target_list",
    "target_expression", "validity_seconds", "retry_count", "retry_period_seconds", "uncertain_policy", "wave_percent",
    "wave_messages", "wave_period_seconds",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One delivery that a tick made."""

    id: int
    label: str
    state: int
    made_for: datetime


@dataclass(frozen=True, slots=True)
class Ticked:
    """What became of a tick. ``made`` None: nothing, and ``line`` says why."""

    made: int | None
    line: str


def due(conn: Connection, now: datetime) -> list[int]:
    """Return the recurring deliveries whose tick has come."""
    rows = conn.execute(
        "select id from delivery where recurrence_next_at <= %s order by recurrence_next_at limit %s",
        (now, DUE_AT_ONCE),
    ).fetchall()
    return [row[0] for row in rows]


def tick(conn: Connection, delivery_id: int, clock: Clock) -> Ticked | None:
    """Make the delivery of the tick that has come, and order it sent; None where another was faster. Raises UserError."""
    parent, now = deliveries.get(conn, delivery_id, lock=True), clock.now()
    if parent.recurrence_next_at is None or parent.recurrence_next_at > now:
        return None
    plan = orders.plan_of(parent)
    decided = decide(plan, parent.recurrence_next_at, now, _still_open(conn, delivery_id), parent.recurrence_open)
    conn.execute(
        "update delivery set recurrence_next_at = %s, version = version + 1 where id = %s",
        (decided.next_at, delivery_id),
    )
    following = "" if decided.next_at is not None else f"; {plan.why_over(now) or 'no tick comes any more'}"
    if decided.tick is None:
        return Ticked(None, f"delivery {delivery_id}: its tick is left out, {decided.why}{following}")
    row: dict[str, Any] = {name: getattr(parent, name) for name in _COPIED}
    row |= {
        "label": label_of(parent.label, decided.tick, plan),
        "headers": Jsonb(parent.headers),
        "made_of": delivery_id,
        "made_for": decided.tick,
    }
    made = deliveries.insert(conn, row, clock)
    orders.order(conn, made, "start", BY, now)
    missed = f", which makes up {decided.missed} missed before it" if decided.missed else ""
    return Ticked(made, f"delivery {delivery_id} made {made} {row['label']!r}{missed}{following}")


def made_by(conn: Connection, delivery_id: int) -> list[Occurrence]:
    """Return what a recurring delivery has made, newest first, at most SHOWN."""
    rows = conn.execute(
        "select id, label, state, made_for from delivery where made_of = %s order by made_for desc limit %s",
        (delivery_id, SHOWN),
    ).fetchall()
    return [Occurrence(*row) for row in rows]


def next_ticks(delivery: Delivery, now: datetime) -> list[datetime]:
    """Return the next ticks of a recurring delivery; of one that was not begun, those it would have."""
    if not delivery.recurrence or delivery.state in FINAL:
        return []
    if delivery.confirmed_at is not None and delivery.recurrence_next_at is None:
        return []
    return orders.plan_of(delivery).next_ticks(now)


def _still_open(conn: Connection, delivery_id: int) -> int:
    return int(
        scalar(
            conn,
            "select count(*) from delivery where made_of = %s and state <> all(%s)",
            (delivery_id, [int(state) for state in FINAL]),
        )
    )

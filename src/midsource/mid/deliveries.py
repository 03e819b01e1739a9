"""The delivery row of the mid: what a marketing instance announced, found, locked, and moved from state to state.

Every change of state is one compare-and-set through ``model.delivery.TRANSITIONS`` on a locked row, raises the row's
revision, and appends a feed batch, so that the deliveries feed shows it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from psycopg import sql

from midsource.mid import counters
from midsource.model.delivery import DeliveryEvent, DeliveryState, next_state
from midsource.model.errors import Conflict, NotFound, UserError
from midsource.model.ids import Month
from midsource.store.database import Connection, Database
from midsource.wire.schema import DeliveryAnswer, DeliverySpec

OLDEST_MONTH = Month(2015, 1)
"""A delivery id carries its month, and a month becomes a partition: nonsense must not make thousands of them."""
MONTHS_AHEAD = 2
"""Later months than these are a clock that is wrong by weeks."""

_ENDS = frozenset({DeliveryState.FAILED, DeliveryState.FINISHED})
"""States that set ``finished_at`` at once; *stopped* does when its last message is cancelled."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery row, as locked or read."""

    account_id: int
    id: int
    state: DeliveryState
    revision: int
    spec: DeliverySpec
    started_at: datetime | None
    finished_at: datetime | None
    valid_until: datetime | None
    finalised_at: datetime | None


def put_delivery(database: Database, account_id: int, spec: DeliverySpec, now: datetime) -> DeliveryAnswer:
    """Take a delivery in, durable on return. The same content again gets the same answer.

    Other content under the number replaces the first as long as no part was taken; afterwards it raises Conflict.
    Raises UserError for a number whose month is not plausible.
    """
    month = _plausible_month(spec.id, now)
    document = msgspec.json.encode(spec, order="sorted").decode()
    digest = hashlib.sha256(document.encode()).hexdigest()
    if "\\u0000" in document:
        raise UserError("the content of the delivery holds a NUL character", "remove it from subject, HTML or text")
    with database.transaction() as conn:
        conn.execute("select ensure_month('message', %s)", (int(str(month)),))
        created = conn.execute(
            "insert into delivery (account_id, id, label, spec, spec_hash, received_at, state_at) values (%s, %s, %s, %s, %s, %s, %s) "
            "on conflict do nothing returning revision",
            (account_id, spec.id, spec.label, document, digest, now, now),
        ).fetchone()
        if created is not None:
            counters.write_batch(conn, account_id, [spec.id], now)
            return DeliveryAnswer(state=DeliveryState.MESSAGE_FINALISED, revision=created[0], created=True)
        delivery = find(conn, account_id, spec.id, lock="update")
        if delivery.spec != spec:  # values, not hashes: a newer version may know more fields than the stored text has
            delivery = _replace(conn, delivery, document, digest, spec.label, now)
    return DeliveryAnswer(state=delivery.state, revision=delivery.revision)


def find(conn: Connection, account_id: int, delivery_id: int, *, lock: Literal["", "share", "update"] = "") -> Delivery:
    """Return the delivery, locked until the transaction ends if asked. Raises NotFound."""
    row = conn.execute(
        sql.SQL(
            "select state, revision, spec::text, started_at, finished_at, valid_until, finalised_at from delivery "
            "where account_id = %s and id = %s {}"
        ).format(sql.SQL(f"for {lock}" if lock else "")),
        (account_id, delivery_id),
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no delivery {delivery_id} of this account on this mid", "hand it over first")
    return Delivery(account_id, delivery_id, DeliveryState(row[0]), row[1], _spec(row[2]), *row[3:])


def move(conn: Connection, delivery: Delivery, event: DeliveryEvent, now: datetime) -> Delivery:
    """Apply ``event`` to a delivery locked for update, and show it in the feed. Raises Conflict where it is refused."""
    state = next_state(delivery.state, event)
    if state is None:
        raise Conflict(
            f"delivery {delivery.id} is {delivery.state.label} ({delivery.state:d}); it cannot {event.replace('_', ' ')} now",
            "look at `midsource delivery show`",
        )
    start = event is DeliveryEvent.START
    row = conn.execute(
        "update delivery set state = %s, state_at = %s, revision = revision + 1, last_command = case when %s then %s else last_command end, "
        "started_at = coalesce(started_at, %s), valid_until = coalesce(valid_until, %s), finished_at = coalesce(finished_at, %s) "
        "where account_id = %s and id = %s returning revision, started_at, finished_at, valid_until, finalised_at",
        (
            state,
            now,
            event in ("start", "pause", "resume", "stop"),
            str(event),
            now if start else None,
            now + timedelta(seconds=delivery.spec.validity_seconds) if start else None,
            now if state in _ENDS else None,
            delivery.account_id,
            delivery.id,
        ),
    ).fetchone()
    assert row is not None
    counters.write_batch(conn, delivery.account_id, [delivery.id], now)
    return Delivery(delivery.account_id, delivery.id, state, row[0], delivery.spec, *row[1:])


def _spec(document: str) -> DeliverySpec:
    return msgspec.json.decode(document, type=DeliverySpec)


def _replace(conn: Connection, delivery: Delivery, document: str, digest: str, label: str, now: datetime) -> Delivery:
    key = (delivery.account_id, delivery.id)
    taken = conn.execute("select from delivery_part where account_id = %s and delivery_id = %s limit 1", key).fetchone()
    if taken is not None or delivery.state is not DeliveryState.MESSAGE_FINALISED:
        raise Conflict(
            f"delivery {delivery.id} is already here with other content and is {delivery.state.label}",
            "what was handed over is not changed: stop it and prepare a new delivery",
        )
    conn.execute(
        "update delivery set spec = %s, spec_hash = %s, label = %s, revision = revision + 1 where account_id = %s and id = %s",
        (document, digest, label, *key),
    )
    counters.write_batch(conn, delivery.account_id, [delivery.id], now)
    return find(conn, *key)


def _plausible_month(delivery_id: int, now: datetime) -> Month:
    latest = Month.of(now)
    for _ in range(MONTHS_AHEAD):
        latest = latest.next()
    try:
        month = Month.of_delivery(delivery_id)
    except ValueError:
        month = None
    if month is None or not OLDEST_MONTH <= month <= latest:
        raise UserError(
            f"{delivery_id} is no delivery number of a month between {OLDEST_MONTH} and {latest}",
            "compare the clocks of both machines",
        )
    return month

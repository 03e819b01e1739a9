"""Leased batches and outcomes as an mta process makes them, for tests of what is written about them."""

from __future__ import annotations

from datetime import datetime

from midsource.mid import dispatch
from midsource.mid.dispatch import Lease
from midsource.mid.records import Outcome
from midsource.model.message import MessageEvent
from midsource.policy.paths import Head, Want
from midsource.testing.mid import MidDatabase


def leased(mid: MidDatabase, messages: int, owner: str = "one") -> Lease:
    """Make a delivery of one destination and lease its only batch."""
    delivery = mid.delivery(messages=messages)
    with mid.database.transaction() as conn:
        conn.execute(
            "insert into dispatch_batch (account_id, delivery_id, destination, ready_at, ids) "
            "select account_id, delivery_id, domain, now(), array_agg(id order by id) from message group by 1, 2, 3"
        )
    return again(mid, delivery, owner)


def again(mid: MidDatabase, delivery: int, owner: str) -> Lease:
    """Lease a batch of that delivery."""
    with mid.database.transaction() as conn:
        return dispatch.lease(conn, owner, [Want(Head(mid.account_id, delivery, "d0.test"), 1)])[0]


def outcome(lease: Lease, id_: int, event: MessageEvent, at: datetime, again_at: datetime | None = None) -> Outcome:
    """Return what came of a try at one of the messages of ``lease``."""
    return Outcome(
        account_id=lease.account_id,
        delivery_id=lease.delivery_id,
        id=id_,
        batch_id=lease.batch_id,
        token=lease.token,
        event=str(event),
        reason=0,
        reply="250 Ok",
        stage="body",
        event_at=at,
        message_id=f"<{id_}@shop.test>",
        counts_attempt=True,
        again_at=again_at,
        destination=lease.destination,
    )


def batches(mid: MidDatabase) -> list[list[int]]:
    """Return the messages of each batch."""
    with mid.database.connection() as conn:
        return [ids for (ids,) in conn.execute("select ids from dispatch_batch order by id").fetchall()]


def states(mid: MidDatabase) -> list[int]:
    """Return the state of each message, by id."""
    with mid.database.connection() as conn:
        return [state for (state,) in conn.execute("select state from message order by id").fetchall()]

"""The step of `cleanup` that closes expired deliveries: their validity is over and messages still wait.

An mta process ends each message itself when its turn comes after the end of validity. What is left here waits for a
process that does not run, or belongs to a delivery that was paused. A page takes MAX_BATCH_ROWS messages of one delivery:
one never tried is *cancelled*, one put off is *failed* with its last reason; each has its outcome row, so the marketing
instance hears of it. Messages that a process holds are left to it. When nothing waits any more the delivery is *finished*.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from midsource.mid import counters, deliveries, ledger, orders
from midsource.mid.ledger import OutcomeRecord
from midsource.model.delivery import SENDING, DeliveryEvent, DeliveryState
from midsource.model.message import MessageEvent, MessageState
from midsource.store.cleanup import Removable, Removed, Scene
from midsource.store.database import Connection

GRACE = timedelta(hours=1)
"""After the end of validity: processes that run end their messages themselves by then."""
LOOKED_AT = 200
EXPIRED = "validity over"
_PAUSES = frozenset({DeliveryState.PAUSE_REQUESTED, DeliveryState.PAUSING, DeliveryState.PAUSED})
_FOUND = """
select account_id, id from delivery
where finished_at is null and valid_until < %s and state in (51, 55, 62, 71, 72, 75) order by valid_until limit %s
"""
_WAITING = """
select m.id, m.state, m.reason from message m
where m.account_id = %(account)s and m.delivery_id = %(delivery)s and m.state in (6, 61)
    and m.id not in (select unnest(b.ids) from dispatch_batch b
        where b.account_id = %(account)s and b.delivery_id = %(delivery)s and b.owner is not null)
    and not exists (select from outcome_aside a
        where a.account_id = m.account_id and a.delivery_id = m.delivery_id and a.id = m.id)
order by m.id limit %(limit)s for no key update of m
"""


def count(scene: Scene) -> Removable:
    """Return how many messages of expired deliveries wait, by the counters."""
    rows = 0
    with scene.database.connection() as conn:
        for account_id, delivery_id in _expired(conn, scene.now):
            totals = counters.totals(conn, account_id, delivery_id)
            rows += totals.get(MessageState.PENDING, 0) + totals.get(MessageState.DEFERRED, 0)
        following = conn.execute(
            "select min(valid_until) from delivery where finished_at is null and valid_until >= %s",
            (scene.now - GRACE,),
        ).fetchone()
    next_at = following[0] + GRACE if following and following[0] else None
    return Removable(rows, next_at=None if rows else next_at)


def page(scene: Scene) -> Removed:
    """End some waiting messages of one expired delivery, or the delivery itself; what a process holds is its own."""
    with scene.database.connection() as conn:
        found = _expired(conn, scene.now)
    for account_id, delivery_id in found:
        ended = _end_some(scene, account_id, delivery_id)
        if ended:
            return Removed(ended, more=True)
    return Removed()


def _expired(conn: Connection, now: datetime) -> list[tuple[int, int]]:
    rows = conn.execute(_FOUND, (now - GRACE, LOOKED_AT)).fetchall()
    return [(account_id, delivery_id) for account_id, delivery_id in rows]


def _end_some(scene: Scene, account_id: int, delivery_id: int) -> int:
    key = {"account": account_id, "delivery": delivery_id, "limit": ledger.MAX_BATCH_ROWS}
    with scene.database.transaction() as conn:
        waiting = conn.execute(_WAITING, key).fetchall()
        records = [_record(delivery_id, scene.now, *row) for row in waiting]
        ended = ledger.record_outcomes(conn, account_id, records, scene.now).changed
    if len(waiting) < ledger.MAX_BATCH_ROWS:
        _end_delivery(scene, account_id, delivery_id)
    return ended


def _record(delivery_id: int, now: datetime, id_: int, state: int, reason: int) -> OutcomeRecord:
    event = MessageEvent.CANCEL if state == MessageState.PENDING else MessageEvent.EXHAUSTED
    reply = EXPIRED if event is MessageEvent.CANCEL else ""
    return OutcomeRecord(delivery_id, id_, event, now, reason=reason, reply=reply, counts_attempt=False)


def _end_delivery(scene: Scene, account_id: int, delivery_id: int) -> None:
    """Finish a delivery of which nothing waits any more; its batches that nobody holds go."""
    with scene.database.transaction() as conn:
        delivery = deliveries.find(conn, account_id, delivery_id, lock="update")
        conn.execute(
            "delete from dispatch_batch where account_id = %s and delivery_id = %s and owner is null",
            (account_id, delivery_id),
        )
        if delivery.state in SENDING:
            orders.advance(conn, account_id, delivery_id, scene.now)
            return
        totals = counters.totals(conn, account_id, delivery_id)
        waiting = totals.get(MessageState.PENDING, 0) + totals.get(MessageState.DEFERRED, 0)
        if delivery.state in _PAUSES and not waiting and not counters.recount(conn, account_id, delivery_id, scene.now):
            deliveries.move(conn, delivery, DeliveryEvent.NOTHING_PENDING, scene.now)

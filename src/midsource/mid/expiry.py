"""Closes expired deliveries, whose validity is over and messages still wait: at that moment, and as a step of `cleanup`.

An mta process ends each message itself when its turn comes after the end of validity, and every few seconds what waits in no
process, of paused deliveries too. `cleanup` does it an hour later where no mta process runs. A page takes MAX_BATCH_ROWS messages of one delivery:
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
from midsource.store.database import Connection, Database

GRACE = timedelta(hours=1)
"""After the end of validity: processes that run end their messages themselves by then."""
LOOKED_AT = 200
EXPIRED = "validity over"
_PAUSES = frozenset({DeliveryState.PAUSE_REQUESTED, DeliveryState.PAUSING, DeliveryState.PAUSED})
_FOUND = """
select account_id, id from delivery
where finished_at is null and valid_until < %s and state in (51, 55, 62, 71, 72, 75)
    and not exists (select from account_hold h where h.account_id = delivery.account_id) order by valid_until limit %s
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
        for account_id, delivery_id in _expired(conn, scene.now - GRACE):
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
    ended = end_expired(scene.database, scene.now, GRACE)
    return Removed(ended, more=bool(ended))


def end_expired(database: Database, now: datetime, grace: timedelta = timedelta(0)) -> int:
    """End some waiting messages of one delivery whose validity was over ``grace`` ago; return how many, 0: none waits any more.

    Whoever ticks calls it at the moment of expiry, `cleanup` later for what was forgotten.
    """
    with database.connection() as conn:
        found = _expired(conn, now - grace)
    for account_id, delivery_id in found:
        if ended := _end_some(database, account_id, delivery_id, now):
            return ended
    return 0


def _expired(conn: Connection, before: datetime) -> list[tuple[int, int]]:
    rows = conn.execute(_FOUND, (before, LOOKED_AT)).fetchall()
    return [(account_id, delivery_id) for account_id, delivery_id in rows]


def _end_some(database: Database, account_id: int, delivery_id: int, now: datetime) -> int:
    key = {"account": account_id, "delivery": delivery_id, "limit": ledger.MAX_BATCH_ROWS}
    with database.transaction() as conn:
        waiting = conn.execute(_WAITING, key).fetchall()
        records = [_record(delivery_id, now, *row) for row in waiting]
        ended = ledger.record_outcomes(conn, account_id, records, now).changed
    if len(waiting) < ledger.MAX_BATCH_ROWS:
        _end_delivery(database, account_id, delivery_id, now)
    return ended


def _record(delivery_id: int, now: datetime, id_: int, state: int, reason: int) -> OutcomeRecord:
    event = MessageEvent.CANCEL if state == MessageState.PENDING else MessageEvent.EXHAUSTED
    reply = EXPIRED if event is MessageEvent.CANCEL else ""
    return OutcomeRecord(delivery_id, id_, event, now, reason=reason, reply=reply, counts_attempt=False)


def _end_delivery(database: Database, account_id: int, delivery_id: int, now: datetime) -> None:
    """Finish a delivery of which nothing waits any more; its batches that nobody holds go."""
    with database.transaction() as conn:
        delivery = deliveries.find(conn, account_id, delivery_id, lock="update")
        conn.execute(
            "delete from dispatch_batch where account_id = %s and delivery_id = %s and owner is null",
            (account_id, delivery_id),
        )
        if delivery.state in SENDING:
            orders.advance(conn, account_id, delivery_id, now)
            return
        totals = counters.totals(conn, account_id, delivery_id)
        waiting = totals.get(MessageState.PENDING, 0) + totals.get(MessageState.DEFERRED, 0)
        if delivery.state in _PAUSES and not waiting and not counters.recount(conn, account_id, delivery_id, now):
            deliveries.move(conn, delivery, DeliveryEvent.NOTHING_PENDING, now)

"""Orders of the marketing instance, and the moves that a delivery makes by itself once it is started.

Order of events. *start* makes the dispatch batches: per recipient domain at most 500 ids, due at once or each wave a
period later, by one statement.
*pause* changes the state only: leasing joins ``delivery.state`` (51, 55, 62 send), so no batch of a paused delivery is
leased, and when the last lease is given back, or judged by recovery after its process died, the delivery is *paused*. *stop* does the same for good and
cancels what is pending or deferred, in transactions of at most 5 000 rows; messages that a process still holds end as
it says, uncertain ones stay so. Repeating an order that holds is answered like the first.

``advance`` moves a delivery by its counters; processes call it after recording, and ``sweep`` calls it for open
deliveries, so that a process which died in between leaves nothing behind. Everything is durable at the caller's commit.

A message that waits is in a dispatch batch; should one ever be in none (rows deleted by hand, a bug), nobody would find
it. So a delivery that waits for messages and has no batch at all gets new ones, loudly.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from midsource.mid import counters, deliveries, ledger
from midsource.mid.deliveries import Delivery
from midsource.model.delivery import SENDING, DeliveryEvent, DeliveryState
from midsource.model.errors import UserError, said
from midsource.model.message import MessageState
from midsource.store.database import Connection, Database, scalar
from midsource.wire.schema import CommandAnswer

BATCH_IDS = 500
"""Ids of one dispatch batch; the table's CHECK says the same."""
DISPATCH_SECONDS = 600
"""Time for making the batches of one delivery: about 2 s for a million messages on two cores."""
CANCEL_TURNS = 40
"""Transactions of 5 000 that a stop waits for; the sweep cancels the rest."""
SWEEP_DELIVERIES = 200
"""Open deliveries looked at in one sweep, drawn by lot: whatever the first ones do, the others have their turn."""

S = DeliveryState
E = DeliveryEvent
_PAUSES = frozenset({S.PAUSE_REQUESTED, S.PAUSING, S.PAUSED})
_log = structlog.get_logger("midsource.orders")
_VERBS = {"start": E.START, "pause": E.PAUSE, "resume": E.RESUME, "stop": E.STOP}


def command(database: Database, account_id: int, delivery_id: int, verb: str, now: datetime) -> CommandAnswer:
    """Carry out ``verb`` (start, pause, resume, stop), durable on return. Raises NotFound, Conflict, UserError."""
    event = _VERBS.get(verb)
    if event is None:
        raise UserError(f"there is no order {verb!r}", f"orders: {', '.join(_VERBS)}")
    with database.transaction(statement_seconds=DISPATCH_SECONDS) as conn:
        delivery = deliveries.find(conn, account_id, delivery_id, lock="update")
        if not _holds(event, delivery):
            delivery = deliveries.move(conn, delivery, event, now)
            if event is E.START:
                _make_dispatch_batches(conn, delivery, now)
        delivery = _advanced(conn, delivery, now)
    if delivery.state is S.STOPPED and delivery.finished_at is None:
        _cancel(database, account_id, delivery_id, now, CANCEL_TURNS)
        with database.transaction() as conn:
            delivery = deliveries.find(conn, account_id, delivery_id)
    return CommandAnswer(state=int(delivery.state), revision=delivery.revision)


def advance(conn: Connection, account_id: int, delivery_id: int, now: datetime) -> DeliveryState:
    """Move a delivery on as far as its counters say, in the caller's transaction; return its state.

    start pending → in progress at the first outcome → retry when only deferred ones are left → finished when nothing is
    pending or deferred (uncertain ones do not count: one that is sent again is pending); pause requested → paused when
    nothing is leased; stopped gets its end when the last message is cancelled. Raises NotFound.
    """
    return _advanced(conn, deliveries.find(conn, account_id, delivery_id, lock="update"), now).state


def sweep(database: Database, now: datetime) -> tuple[str, ...]:
    """Advance every open delivery and go on cancelling stopped ones; return a sentence for each that failed.

    For whoever ticks (every 5 s or so). Each delivery has a transaction of its own and fails alone.
    """
    with database.transaction() as conn:
        counters.fold(conn)
        found = conn.execute(
            "select account_id, id, state from delivery where finished_at is null and state in (51, 55, 62, 71, 72, 85) "
            "order by random() limit %s",
            (SWEEP_DELIVERIES,),
        ).fetchall()
    problems = []
    for account_id, delivery_id, state in found:
        try:
            if state == S.STOPPED:
                _cancel(database, account_id, delivery_id, now, 1)
            else:
                with database.transaction() as conn:
                    advance(conn, account_id, delivery_id, now)
        except Exception as exc:  # noqa: BLE001 - whatever one delivery's rows hold, the others go on
            problems.append(f"delivery {delivery_id}: {said(exc)}")
            _log.warning("sweep.failed", action="sweep", delivery=delivery_id, why=said(exc))
    return tuple(problems)


def _holds(event: DeliveryEvent, delivery: Delivery) -> bool:
    """Tell whether the order was carried out before: the answer of the first time may have been lost on the way."""
    match event:
        case E.START:
            return delivery.started_at is not None and delivery.state is not S.STOPPED
        case E.PAUSE:
            return delivery.state in _PAUSES
        case E.RESUME:
            return delivery.state in SENDING
        case _:
            return delivery.state is S.STOPPED


def _make_dispatch_batches(conn: Connection, delivery: Delivery, now: datetime) -> int:
    """Put every waiting message of a delivery that has no batch into one, due at once or with its wave; return how many batches.

    Wave n is ready n periods after the start; messages belong to waves by their order.

    One statement, so one snapshot: in it, a waiting message is in a batch or in none, never on its way between two. One
    whose outcome is set aside was tried and is not tried again.
    """
    return conn.execute(
        "insert into dispatch_batch (account_id, delivery_id, destination, ready_at, ids) "
        "select %(account)s, %(delivery)s, domain, now() + make_interval(secs => wave * %(period)s - %(gone)s), "
        "array_agg(id order by id) from ("
        "  select id, domain, wave, (row_number() over (partition by domain, wave order by id) - 1) / %(size)s as nth from ("
        "  select id, domain, case when %(wave)s = 0 then 0 else (row_number() over (order by id) - 1) / %(wave)s end as wave "
        "  from message where account_id = %(account)s and delivery_id = %(delivery)s and state in (6, 61) and not exists ("
        "    select from outcome_aside a where a.account_id = %(account)s and a.delivery_id = %(delivery)s and a.id = message.id)) w) m "
        "where not exists (select from dispatch_batch where account_id = %(account)s and delivery_id = %(delivery)s) "
        "group by domain, wave, nth",
        {
            "account": delivery.account_id,
            "delivery": delivery.id,
            "size": BATCH_IDS,
            "wave": delivery.spec.wave_messages,
            "period": delivery.spec.wave_period_seconds,
            "gone": 0.0 if delivery.started_at is None else max(0.0, (now - delivery.started_at).total_seconds()),
        },
    ).rowcount


def _advanced(conn: Connection, delivery: Delivery, now: datetime) -> Delivery:
    """Apply what the counters allow, one event after the other; the row is locked."""
    if delivery.state in _PAUSES:
        idle = delivery.state is not S.PAUSED and not _is_leased(conn, delivery)
        return deliveries.move(conn, delivery, E.PAUSED, now) if idle else delivery
    if delivery.state not in SENDING and delivery.state is not S.STOPPED:
        return delivery
    totals = counters.totals(conn, delivery.account_id, delivery.id)
    pending, deferred = totals.pop(MessageState.PENDING, 0), totals.pop(MessageState.DEFERRED, 0)
    if delivery.state is S.STOPPED:
        return _ended(conn, delivery, now) if pending + deferred == 0 and delivery.finished_at is None else delivery
    if pending + deferred == 0:
        if counters.recount(conn, delivery.account_id, delivery.id, now):
            return delivery  # the counters were wrong and are corrected: look again next time
        return deliveries.move(conn, delivery, E.NOTHING_PENDING, now)
    if made := _make_dispatch_batches(conn, delivery, now) if not _has_batches(conn, delivery) else 0:
        _log.error("messages.stranded", action="requeue", delivery=delivery.id, batches=made)
    if delivery.state is S.START_PENDING and (deferred or totals):
        delivery = deliveries.move(conn, delivery, E.FIRST_MESSAGE, now)
    if delivery.state is S.IN_PROGRESS and pending == 0 and deferred:
        return deliveries.move(conn, delivery, E.ONLY_RETRIES_LEFT, now)
    if delivery.state is S.RETRY and pending:
        return deliveries.move(conn, delivery, E.MESSAGES_READY, now)
    return delivery


def _has_batches(conn: Connection, delivery: Delivery) -> bool:
    return bool(
        scalar(
            conn,
            "select exists (select from dispatch_batch where account_id = %s and delivery_id = %s)",
            (delivery.account_id, delivery.id),
        )
    )


def _is_leased(conn: Connection, delivery: Delivery) -> bool:
    """Tell whether a process holds messages. A lease that has run out counts until recovery has judged its messages."""
    return bool(
        scalar(
            conn,
            "select exists (select from dispatch_batch where account_id = %s and delivery_id = %s and owner is not null)",
            (delivery.account_id, delivery.id),
        )
    )


def _cancel(database: Database, account_id: int, delivery_id: int, now: datetime, turns: int) -> None:
    """Cancel in bounded transactions, drop the batches nobody holds, and end the delivery when nothing is left."""
    key = (account_id, delivery_id)
    for _ in range(turns):
        with database.transaction() as conn:
            if ledger.cancel_pending(conn, *key, ledger.MAX_BATCH_ROWS, now) < ledger.MAX_BATCH_ROWS:
                break
    with database.transaction() as conn:
        current = deliveries.find(conn, *key, lock="update")
        conn.execute(
            "delete from dispatch_batch where account_id = %s and delivery_id = %s and owner is null",
            key,
        )
        _advanced(conn, current, now)


def _ended(conn: Connection, delivery: Delivery, now: datetime) -> Delivery:
    counters.recount(conn, delivery.account_id, delivery.id, now)
    conn.execute(
        "update delivery set finished_at = %s, revision = revision + 1 where account_id = %s and id = %s",
        (now, delivery.account_id, delivery.id),
    )
    counters.write_batch(conn, delivery.account_id, [delivery.id], now)
    return deliveries.find(conn, delivery.account_id, delivery.id)

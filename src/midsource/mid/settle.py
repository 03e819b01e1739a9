"""Write what came of tries into PostgreSQL: one transaction per sealed journal batch, done once however often it is asked.

Order of events inside the caller's transaction: (1) (process, segment, number) goes into ``journal_applied``; there
already: nothing else happens; (2) the dispatch batches are locked in order, and those that ``process`` does not have any
more under the outcome's token are *fenced*: their messages were given to somebody else; (3) `mid.ledger` records the outcomes; (4) messages put
off get a new dispatch batch, uncertain ones whose delivery says *resend* too; (5) every message with an outcome leaves
its batch, and an empty batch goes.

Of a fenced batch only the outcomes are recorded (late evidence: a 250 proves a copy), never a retry: that is the new
owner's. An outcome of a fenced batch that recovery has already read out of our journal is recognised by process,
message and time, and is not recorded twice. Used by the mta process itself and by `mid.recovery` for its journal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from midsource.mid import dispatch
from midsource.mid.dispatch import DeliveryKey, Due
from midsource.mid.ledger import OutcomeRecord, Recorded, record_outcomes
from midsource.mid.records import Outcome, Sealed
from midsource.model.message import MessageEvent, MessageState
from midsource.store.database import Connection


@dataclass(frozen=True, slots=True)
class Settled:
    """What a transaction did: ``repeated`` when an earlier one had done it; ``fenced``: batches that are not ours now."""

    repeated: bool
    recorded: int = 0
    again: int = 0
    fenced: frozenset[int] = frozenset()
    deliveries: frozenset[DeliveryKey] = frozenset()


@dataclass(frozen=True, slots=True)
class _Batch:
    token: int
    ids: tuple[int, ...]


def settle(conn: Connection, process: str, sealed: Sealed, now: datetime) -> Settled:
    """Record one sealed batch of ``process``, in the caller's transaction. Raises what the database raises."""
    fresh = conn.execute(
        "insert into journal_applied (process, segment, number) values (%s, %s, %s) on conflict do nothing returning 1",
        (process, sealed.segment, sealed.number),
    ).fetchone()
    deliveries = frozenset((o.account_id, o.delivery_id) for o in sealed.outcomes)
    if fresh is None:
        return Settled(repeated=True, deliveries=deliveries)
    return settle_outcomes(conn, process, sealed.outcomes, now)


def settle_outcomes(conn: Connection, process: str, outcomes: Sequence[Outcome], now: datetime) -> Settled:
    """Do steps 2 to 5: what `settle` does once its number is taken."""
    held = _lock_batches(conn, process, {outcome.batch_id for outcome in outcomes})
    fenced = frozenset(o.batch_id for o in outcomes if o.batch_id not in held or held[o.batch_id].token != o.token)
    late = [o for o in outcomes if o.batch_id in fenced]
    if late:
        known = _known(conn, process, late)
        outcomes = [o for o in outcomes if o.batch_id not in fenced or (o.delivery_id, o.id, o.event_at) not in known]
    dues: list[Due] = []
    for account_id in sorted({o.account_id for o in outcomes}):
        own = [o for o in outcomes if o.account_id == account_id]
        result = record_outcomes(conn, account_id, [_record(o, process) for o in own], now)
        again = [o for o, row in zip(own, result.rows, strict=True) if o.batch_id not in fenced and _due_again(o, row)]
        dues += [Due(o.account_id, o.delivery_id, o.destination, o.again_at, o.id) for o in again if o.again_at]
        resend = [o for o in again if o.event == MessageEvent.LOST]
        if resend:
            record_outcomes(conn, account_id, [_resent(o, process) for o in resend], now)
    dispatch.schedule(conn, dues, now)
    _take_out(conn, {id_: batch for id_, batch in held.items() if id_ not in fenced}, outcomes)
    return Settled(
        repeated=False,
        recorded=len(outcomes),
        again=len(dues),
        fenced=fenced,
        deliveries=frozenset((o.account_id, o.delivery_id) for o in outcomes),
    )


def _lock_batches(conn: Connection, owner: str, ids: Collection[int]) -> dict[int, _Batch]:
    """Lock the batches and return those that ``owner`` has, by id."""
    rows = conn.execute(
        "select id, token, ids, owner from dispatch_batch where id = any(%s) order by id for update",
        (list(ids),),
        binary=True,
    ).fetchall()
    return {id_: _Batch(token, tuple(held)) for id_, token, held, owned_by in rows if owned_by == owner}


def _known(conn: Connection, process: str, late: Iterable[Outcome]) -> set[tuple[int, int, datetime]]:
    """Return which of these are in the outcome table: rare (a stalled process woke up), so a scan of two days is fine."""
    late = list(late)
    rows = conn.execute(
        "select delivery_id, id, event_at from outcome where account_id = any(%s) and process = %s "
        "and day >= (%s::timestamptz at time zone 'UTC')::date - 1 and delivery_id = any(%s) and id = any(%s)",
        (
            list({o.account_id for o in late}),
            process,
            min(o.event_at for o in late),
            list({o.delivery_id for o in late}),
            [o.id for o in late],
        ),
    ).fetchall()
    return {(delivery, id_, at) for delivery, id_, at in rows}


def _record(outcome: Outcome, process: str) -> OutcomeRecord:
    return OutcomeRecord(
        delivery_id=outcome.delivery_id,
        id=outcome.id,
        event=MessageEvent(outcome.event),
        event_at=outcome.event_at,
        reason=outcome.reason,
        reply=outcome.reply,
        stage=outcome.stage,
        message_id=outcome.message_id,
        process=process,
        counts_attempt=outcome.counts_attempt,
    )


def _resent(outcome: Outcome, process: str) -> OutcomeRecord:
    return OutcomeRecord(
        outcome.delivery_id, outcome.id, MessageEvent.RESEND, outcome.event_at, process=process, counts_attempt=False
    )


def _due_again(outcome: Outcome, row: Recorded | None) -> bool:
    return (
        outcome.again_at is not None
        and row is not None
        and row.changed
        and row.state in (MessageState.DEFERRED, MessageState.UNCERTAIN)
    )


def _take_out(conn: Connection, held: Mapping[int, _Batch], outcomes: Iterable[Outcome]) -> None:
    """Take the messages with an outcome out of their batches; remove the batches that are empty then."""
    done: dict[int, set[int]] = {}
    for outcome in outcomes:
        done.setdefault(outcome.batch_id, set()).add(outcome.id)
    rest = {id_: [i for i in batch.ids if i not in done.get(id_, ())] for id_, batch in held.items()}
    dispatch.keep(conn, rest)

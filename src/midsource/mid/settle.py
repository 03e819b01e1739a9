"""Write what came of tries into PostgreSQL: one transaction per sealed journal batch, done once however often it is asked.

Order of events inside the caller's transaction: (1) (process, segment, number) goes into ``journal_applied``; there
already: nothing else happens; (2) the dispatch batches are locked in order: an outcome is *ours* while ``process`` has
its batch under the outcome's token and the message is still in it; (3) `mid.ledger` records the outcomes; (4) messages put
off get a new dispatch batch, uncertain ones whose delivery says *resend* too; (5) every message with an outcome leaves
its batch, and an empty batch goes.

Of an outcome that is not ours only the fact is recorded (late evidence: a 250 proves a copy), never a retry: the message
was given to somebody else, or this outcome was settled before, under a number that the journal lost with its machine.
Told a second time, it is recognised by process, message and time, and not recorded again.

An outcome that PostgreSQL refuses is found by halving and told again without its texts; refused even so it is set aside
(`mid.aside`). It never holds up the others. What runs into the server's time limit is halved too. Used by the mta process
itself and by `mid.recovery` for its journal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import psycopg
import structlog
from psycopg import errors as pg

from midsource.mid import aside, dispatch
from midsource.mid.dispatch import DeliveryKey, Due
from midsource.mid.ledger import OutcomeRecord, Recorded, record_outcomes
from midsource.mid.records import Outcome, Sealed
from midsource.model.message import MessageEvent, MessageState
from midsource.store.database import Connection, Database

REFUSALS = (
    psycopg.DataError, psycopg.IntegrityError, pg.RaiseException, pg.ProgramLimitExceeded, ValueError, TypeError, OverflowError,
)  # fmt: skip
"""What is about the values of one row. Anything else (no table, no right, no server) is about all and is tried again whole."""
FEWEST = 50
"""Outcomes that a server's time limit must have room for: more are halved when it has not, and never stand still for it."""
REDUCED_WAIT = timedelta(hours=1)
"""Until the next try of a message whose planned time may be what was refused: the field's retry period."""

_log = structlog.get_logger("midsource.mta")


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
    waiting: frozenset[int]


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
    """Do steps 2 to 5: what `settle` does once its number is taken. What is refused is set aside alone, what takes too long is halved."""
    if not outcomes:
        return Settled(repeated=False)
    try:
        with conn.transaction():
            return _settle(conn, process, outcomes, now)
    except REFUSALS as refusal:
        if len(outcomes) == 1:
            return _settle_reduced(conn, process, outcomes[0], refusal, now)
    except pg.QueryCanceled:
        if len(outcomes) <= FEWEST:
            raise
    half = len(outcomes) // 2
    first, second = (settle_outcomes(conn, process, part, now) for part in (outcomes[:half], outcomes[half:]))
    return Settled(
        repeated=False,
        recorded=first.recorded + second.recorded,
        again=first.again + second.again,
        fenced=first.fenced | second.fenced,
        deliveries=first.deliveries | second.deliveries,
    )


def try_set_aside(database: Database, now: datetime) -> int:
    """Try what was set aside and is due once more; return how many were recorded."""
    done = 0
    with database.transaction() as conn:
        for item in aside.due(conn):
            try:
                with conn.transaction():
                    _record_all(conn, item.process, [item.outcome], [item.outcome], now)
                    aside.drop(conn, item.number)
                done += 1
            except REFUSALS as refusal:
                aside.put_off(conn, item.number, _why(refusal))
    return done


def _settle(conn: Connection, process: str, outcomes: Sequence[Outcome], now: datetime) -> Settled:
    held = _lock_batches(conn, process, {outcome.batch_id for outcome in outcomes})
    fenced = frozenset(o.batch_id for o in outcomes if o.batch_id not in held or held[o.batch_id].token != o.token)
    ours = [o for o in outcomes if o.batch_id not in fenced and o.id in held[o.batch_id].waiting]
    if len(ours) < len(outcomes):
        mine = set(map(id, ours))
        known = _known(conn, process, [o for o in outcomes if id(o) not in mine])
        outcomes = [o for o in outcomes if id(o) in mine or (o.delivery_id, o.id, o.event_at) not in known]
    again = _record_all(conn, process, outcomes, ours, now)
    _take_out(conn, {id_: batch for id_, batch in held.items() if id_ not in fenced}, ours)
    return Settled(
        repeated=False,
        recorded=len(outcomes),
        again=again,
        fenced=fenced,
        deliveries=frozenset((o.account_id, o.delivery_id) for o in outcomes),
    )


def _settle_reduced(conn: Connection, process: str, outcome: Outcome, refusal: BaseException, now: datetime) -> Settled:
    """Record what happened without what was said about it; refused too, set it aside."""
    bare = msgspec.structs.replace(
        outcome,
        reason=0,
        reply="the reply could not be stored",
        message_id="",
        again_at=outcome.again_at and now + REDUCED_WAIT,
    )
    _log.error(
        "outcome.refused", action="settle", delivery=outcome.delivery_id, message=outcome.id, event_name=outcome.event,
        why=_why(refusal),
    )  # fmt: skip
    try:
        with conn.transaction():
            return _settle(conn, process, [bare], now)
    except REFUSALS as again:
        held = _lock_batches(conn, process, {outcome.batch_id})
        aside.put(conn, process, outcome, _why(again))
        ours = [outcome] if outcome.batch_id in held and held[outcome.batch_id].token == outcome.token else []
        _take_out(conn, held, ours)
    return Settled(repeated=False, deliveries=frozenset({(outcome.account_id, outcome.delivery_id)}))


def _record_all(
    conn: Connection, process: str, outcomes: Sequence[Outcome], ours: Sequence[Outcome], now: datetime
) -> int:
    """Record outcomes, and plan again those of ``ours`` that say so; return how many are planned."""
    planned = {id(o) for o in ours if o.again_at is not None}
    dues: list[Due] = []
    for account_id in sorted({o.account_id for o in outcomes}):
        own = [o for o in outcomes if o.account_id == account_id]
        result = record_outcomes(conn, account_id, [_record(o, process) for o in own], now, tell=bool(planned))
        if not planned:
            continue
        again = [o for o, row in zip(own, result.rows, strict=True) if id(o) in planned and _due_again(o, row)]
        dues += [Due(o.account_id, o.delivery_id, o.destination, o.again_at, o.id) for o in again if o.again_at]
        resend = [o for o in again if o.event == MessageEvent.LOST]
        if resend:
            record_outcomes(conn, account_id, [_resent(o, process) for o in resend], now)
    dispatch.schedule(conn, dues, now)
    return len(dues)


def _why(refusal: BaseException) -> str:
    """Return what was refused without the values: they are somebody's address or data."""
    return f"{type(refusal).__name__} {getattr(refusal, 'sqlstate', None) or ''}".strip()


def _lock_batches(conn: Connection, owner: str, ids: Collection[int]) -> dict[int, _Batch]:
    """Lock the batches and return those that ``owner`` has, by id."""
    rows = conn.execute(
        "select id, token, ids, owner from dispatch_batch where id = any(%s) order by id for update",
        (list(ids),),
        binary=True,
    ).fetchall()
    return {
        id_: _Batch(token, tuple(held), frozenset(held)) for id_, token, held, owned_by in rows if owned_by == owner
    }


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

"""Outcomes *lost*: what is written about messages of which nobody can say whether they left. See `mid.recovery` for which those are.

A delivery whose content cannot be read is held, whatever its policy says: a second copy is never sent on a guess.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import datetime

import msgspec
import structlog

from midsource.mid import dispatch
from midsource.mid.dispatch import DeliveryKey
from midsource.mid.records import Outcome, Start
from midsource.model.errors import first_line
from midsource.model.message import MessageEvent
from midsource.model.outcome import Stage
from midsource.policy.retry import RetryRule, next_attempt
from midsource.store.database import Connection
from midsource.wire.schema import DeliverySpec

_log = structlog.get_logger("midsource.mta")


def of(conn: Connection, starts: Iterable[Start], why: str, now: datetime) -> list[Outcome]:
    """Return the outcome *lost* of each message, due again where its delivery's policy says so."""
    by_delivery: dict[DeliveryKey, list[Start]] = {}
    for start in starts:
        by_delivery.setdefault((start.account_id, start.delivery_id), []).append(start)
    found: list[Outcome] = []
    for key, own in by_delivery.items():
        again = _plans(conn, key, [start.id for start in own], now)
        destinations = _destinations(conn, [start.batch_id for start in own])
        found += [
            Outcome(
                account_id=start.account_id,
                delivery_id=start.delivery_id,
                id=start.id,
                batch_id=start.batch_id,
                token=start.token,
                event=str(MessageEvent.LOST),
                reason=0,
                reply=f"the body was under way when {why}",
                stage=str(Stage.BODY),
                event_at=now,
                message_id="",
                counts_attempt=True,
                again_at=again.get(start.id),
                destination=destinations[start.batch_id],
            )
            for start in own
        ]
    return found


def _plans(conn: Connection, key: DeliveryKey, ids: list[int], now: datetime) -> dict[int, datetime]:
    """Return when each uncertain message is tried again; those that are not, are not in it."""
    row = dispatch.delivery(conn, key)
    if row is None:
        return {}
    try:
        spec = msgspec.json.decode(row.spec, type=DeliverySpec)
    except ValueError as error:  # msgspec's errors are
        _log.error("delivery.unusable", action="recover", delivery=key[1], why=first_line(error))
        return {}
    if spec.uncertain_policy != "resend":
        return {}
    rule = RetryRule(spec.retry_count, spec.retry_period_seconds)
    messages = conn.execute(
        "select id, attempts from message where account_id = %s and delivery_id = %s and id = any(%s)",
        (*key, ids),
    ).fetchall()
    plans = {
        id_: next_attempt(attempts + 1, rule, row.valid_until or now, now, random.random())  # noqa: S311 - spreads load
        for id_, attempts in messages
    }
    return {id_: at for id_, at in plans.items() if at is not None}


def _destinations(conn: Connection, batches: list[int]) -> dict[int, str]:
    return dict(conn.execute("select id, destination from dispatch_batch where id = any(%s)", (batches,)).fetchall())

"""Hand a prepared delivery over to its mid: job ``handover``, in slices.

Order of events: the delivery's content (`SubmitMidSourcing`, a repeat is harmless and shows whether the mid is there) →
stored parts, `NmsMidSourcing_PrepareFlow` at a time, resumed from the last acknowledged one (`AppendDeliveryPart`) →
count and hash of everything compared (`FinalizeMidPreparation`) → one transaction: state *ready*, ``handed_over`` and
``refused`` set. If the operator has already said *send*, the job ``order`` follows.

A mid that is down, slow or restored costs time, never a row: the job keeps the delivery in *message finalised* (25) and
goes on after a pause of 1 to 60 s. Parts that the mid lost (restored from a backup) are found by ``finalise`` and sent
again. What can never succeed (wrong key, not a mid, other version) ends the job with the sentence in `delivery.error`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from psycopg.types.json import Jsonb

from midsource.engine.work import Context, JobKind, Report
from midsource.marketing import accounts, deliveries, link_journal, orders, upload
from midsource.marketing.brands import get_brand
from midsource.marketing.deliveries import Delivery
from midsource.marketing.link_journal import Call, Method
from midsource.marketing.uploads import Uploads
from midsource.model.delivery import DeliveryEvent, DeliveryState
from midsource.model.errors import Conflict, Failed, RemoteRefused
from midsource.policy import parts
from midsource.store.database import scalar
from midsource.wire.client import MidClient
from midsource.wire.failures import LinkFailure
from midsource.wire.rows import HASH_MODULUS
from midsource.wire.schema import DeliverySpec, Finalise, FinaliseAnswer

RESENDS = 3
"""Rounds of sending again what the mid says is missing, in one slice."""


def hand_over(context: Context) -> Report:
    """Do one slice of handing over the delivery ``context.subject``. Raises RemoteRefused, Failed."""
    with context.database.connection() as conn:
        delivery = deliveries.get(conn, context.subject)
    if delivery.state != DeliveryState.MESSAGE_FINALISED:
        return _nothing_to_do(delivery)
    try:
        with accounts.open_client(context.database, context.home, delivery.account, context.clock) as client:
            return _HandOver(context, client, delivery).run()
    except (RemoteRefused, Failed, Conflict) as exc:
        with context.database.transaction() as conn:
            now = deliveries.get(conn, delivery.id, lock=True)
            if now.state != DeliveryState.MESSAGE_FINALISED:  # stopped while parts were on their way
                return _nothing_to_do(now)
            conn.execute("update delivery set error = %s where id = %s", (str(exc), delivery.id))
        raise


JOB = JobKind("handover", hand_over)


def _nothing_to_do(delivery: Delivery) -> Report:
    state = DeliveryState(delivery.state)
    if state < DeliveryState.MESSAGE_FINALISED or state is DeliveryState.PREPARATION_FAILED:
        raise Failed(f"delivery {delivery.id} is {state.label}: there is nothing to hand over", "prepare it first")
    return Report(note=f"delivery {delivery.id} is {state.label} already", then=_order_due(delivery))


def _order_due(delivery: Delivery) -> tuple[str, ...]:
    unordered = delivery.state == DeliveryState.READY or delivery.is_unconfirmed
    return ("order",) if delivery.confirmed_at is not None and unordered else ()


class _HandOver:
    """One slice."""

    def __init__(self, context: Context, client: MidClient, delivery: Delivery) -> None:
        self._context = context
        self._client = client
        self._delivery = delivery
        self._chance: Callable[[], float] = random.random
        self._uploads = Uploads(context, client, delivery, self._chance)
        self._parts = self._uploads.parts

    def run(self) -> Report:
        self._context.beat()
        pause = self._attempt(Method.SUBMIT, lambda: self._client.put_delivery(self._spec()))
        if pause is not None:
            return self._later(pause)
        for _ in range(RESENDS):
            left = self._uploads.send_all()
            if left is not None:
                return self._later(left)
            finished = self._finalise()
            if finished is not None:
                return finished
        raise Failed(
            f"the mid and this instance do not agree about delivery {self._delivery.id} after sending again what was missing",
            "see the journal of the hand-over on both sides; nothing was started",
        )

    def _later(self, seconds: float) -> Report:
        self._uploads.show_progress()
        return Report(rows_written=self._uploads.rows_sent, more_after_seconds=seconds)

    def _finalise(self) -> Report | None:
        """Compare both sides; None when parts have to be sent again."""
        with self._context.database.connection() as conn:
            row = conn.execute(
                "select coalesce(sum(rows), 0) - coalesce(sum(jsonb_array_length(refused)), 0), coalesce(sum(row_hash), 0), "
                "coalesce(sum(jsonb_array_length(refused)), 0) from upload_part where delivery_id = %s and state = 'acknowledged'",
                (self._delivery.id,),
            ).fetchone()
        assert row is not None
        messages, row_hash, refused = int(row[0]), int(row[1]) % HASH_MODULUS, int(row[2])
        claim = Finalise(messages=messages, row_hash=str(row_hash), parts=self._parts)
        answers: list[FinaliseAnswer] = []
        pause = self._attempt(Method.FINALISE, lambda: answers.append(self._client.finalise(self._delivery.id, claim)))
        if pause is not None:
            return self._later(pause)
        answer = answers[0]
        if answer.agreed:
            return self._ready_now(messages, refused)
        again = self._lost_parts(answer)
        line = (
            f"{Method.FINALISE}: the mid holds {answer.messages} of {messages} messages in {answer.parts} of {self._parts} "
            f"parts; {again} parts are sent again"
        )
        self._context.say("warning", line)
        if not again:
            raise Failed(
                line, "both sides hold all parts but not the same rows: create the delivery anew, and report it"
            )
        return None

    def _lost_parts(self, answer: FinaliseAnswer) -> int:
        """Find acknowledged parts that the mid does not hold (any more), by its own list and by asking for each."""
        with self._context.database.connection() as conn:
            names = [
                name
                for (name,) in conn.execute(
                    "select part from upload_part where delivery_id = %s and state = 'acknowledged' order by position, part",
                    (self._delivery.id,),
                )
            ]
        missing = [name for name in names if name.partition(".")[0] in answer.missing]
        for name in names if not missing else ():
            self._context.beat()
            if self._client.get_part(self._delivery.id, name) is None:
                missing.append(name)
        with self._context.database.transaction() as conn:
            return upload.send_again(conn, self._delivery.id, missing)

    def _ready_now(self, messages: int, refused: int) -> Report:
        now = self._context.clock.now()
        with self._context.database.transaction() as conn:
            deliveries.transition(conn, self._delivery.id, DeliveryEvent.HANDED_OVER)
            started = scalar(  # when the last part of the preparation was stored; children of parts are younger
                conn,
                "select max(stored_at) from upload_part where delivery_id = %s and strpos(part, '.') = 0",
                (self._delivery.id,),
            )
            phase = {
                "phase": "hand-over",
                "started_at": (started or now).isoformat(),
                "seconds": round((now - (started or now)).total_seconds(), 3),
                "rows": messages,
            }
            conn.execute(
                "update delivery set handed_over = %s, refused = %s, excluded = targeted - %s, error = '', "
                "phases = phases || %s where id = %s",
                (messages, refused, messages, Jsonb([phase]), self._delivery.id),
            )
            accounts.answered(conn, self._delivery.account)
            orders.store_start(conn, self._delivery.id, now)
            delivery = deliveries.get(conn, self._delivery.id)
        self._uploads.show_progress()
        self._context.say("info", f"handed over {messages} messages in {self._parts} parts, {refused} refused")
        return Report(rows_written=self._uploads.rows_sent, rows_refused=refused, then=_order_due(delivery))

    def _attempt(self, method: Method, make: Callable[[], object]) -> float | None:
        """Make a call that concerns the whole delivery; a passing failure is recorded and gives the pause."""
        call = Call(self._delivery.account, method, delivery_id=self._delivery.id)
        try:
            make()
        except (LinkFailure, RemoteRefused) as exc:
            with self._context.database.connection() as conn:
                attempt = link_journal.next_attempt(conn, call.account, method, call.delivery_id)
            if isinstance(exc, RemoteRefused):
                link_journal.record(self._context, call, exc, attempt, exc.remedy)
                raise
            seconds = parts.pause_seconds(attempt, exc.retry_after_seconds, self._chance())
            link_journal.record(self._context, call, exc, attempt, link_journal.in_seconds(seconds))
            return seconds
        return None

    def _spec(self) -> DeliverySpec:
        delivery = self._delivery
        with self._context.database.connection() as conn:
            brand = get_brand(conn, delivery.brand)
        return DeliverySpec(
            id=delivery.id,
            label=delivery.label,
            subject=delivery.subject,
            html=delivery.html,
            text=delivery.text,
            from_name=delivery.from_name,
            from_address=delivery.from_address,
            brand=delivery.brand,
            reply_to=delivery.reply_to,
            headers=tuple((name, value) for name, value in delivery.headers),
            unsubscribe_url=brand.unsubscribe_url,
            mirror_url=brand.mirror_url,
            validity_seconds=delivery.validity_seconds,
            retry_count=delivery.retry_count,
            retry_period_seconds=delivery.retry_period_seconds,
            uncertain_policy=delivery.uncertain_policy,
            message_key=delivery.message_key,
            wave_messages=delivery.waves.size(delivery.to_deliver or 0) if delivery.waves else 0,
            wave_period_seconds=delivery.wave_period_seconds,
        )

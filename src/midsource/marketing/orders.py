"""Orders to a delivery: send, pause, resume, stop. Stored first, then carried to the mid until it confirms.

``order`` stores what an operator wants, in the caller's transaction, and asks for the job that carries it: *send* of a
delivery that is not prepared asks for its preparation, and `confirmed_at` makes each job start the next one. The job
``order`` calls the mid (`ExecCommand`) with back-off up to a minute until it answers; till then the order shows as not
confirmed (`delivery.order_confirmed_at` null). Only the last order counts: one that was replaced is not sent any more,
and an answer to it confirms nothing. A start waits for `contact_at`; that of a recurring delivery begins its ticks
(recurring.py). What the mid refuses for good ends the job; the
sentence stays in `delivery.error`. An order that the delivery's state on the mid forbids is over then; one refused for a
reason of ours (a wrong key) stays unconfirmed, and is given again once that is mended.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from midsource.engine import jobs
from midsource.engine.work import Context, JobKind, Report
from midsource.marketing import accounts, cancelling, deliveries, link_journal
from midsource.marketing.deliveries import Delivery
from midsource.marketing.link_journal import Call, Method
from midsource.model.delivery import DeliveryEvent, DeliveryState, states_accepting
from midsource.model.errors import Conflict, RemoteRefused, UserError
from midsource.model.schedule import Plan, plan
from midsource.policy.parts import pause_seconds
from midsource.store.database import Connection
from midsource.wire.failures import LinkFailure, NotAMid
from midsource.wire.schema import CommandAnswer

S = DeliveryState
E = DeliveryEvent
VERBS = {"start": E.START, "pause": E.PAUSE, "resume": E.RESUME, "stop": E.STOP}
LOOK_AGAIN_SECONDS = 60.0
"""A start that waits for its contact date looks at least this often: the date or the order may change."""
FOLLOWERS = ("defaultMidSourcingDlv", "defaultMidSourcingLog")
"""Run at once when a delivery starts: results are pulled while it runs, not an hour later."""
AFTER_RUN_SECONDS = 10.0
"""Where a follower's run is just under way it is woken this much later: a run that ends now has looked before the delivery
started, and would absorb the wake; one that goes on for so long has seen it."""
_WAKE = """
update workflow w set next_at = least(next_at, now() + make_interval(secs => case when exists (
    select from workflow_run r where r.workflow = w.name and r.finished_at is null) then %(after)s else 0 end))
 where name = any(%(names)s)
"""
_chance: Callable[[], float] = random.random
_PREPARED = frozenset(S) - {S.EDITED, S.TARGET_READY, S.PERSONALISATION, S.MESSAGE_FINALISED, S.PREPARATION_FAILED}
_RUNNING = frozenset({S.START_PENDING, S.IN_PROGRESS, S.RETRY, S.PAUSE_REQUESTED, S.PAUSING, S.PAUSED})


@dataclass(frozen=True, slots=True)
class Ordered:
    """What was stored, and the job that carries it out. ``job``: its id; '' where nothing is left to do."""

    verb: str
    job: str
    state: DeliveryState


def order(conn: Connection, delivery_id: int, verb: str, by: str, now: datetime) -> Ordered:
    """Store an order and ask for the job that carries it. Raises NotFound, UserError, Conflict where it makes no sense."""
    if verb not in VERBS:
        raise UserError(f"{verb!r} is no order", f"orders are {', '.join(VERBS)}")
    delivery = deliveries.get(conn, delivery_id, lock=True)
    state = S(delivery.state)
    if verb == "start":
        return _send(conn, delivery, by, now)
    if verb == "stop" and state is S.STOPPED and delivery.is_unconfirmed:  # refused once, for a wrong key perhaps
        return Ordered(verb, _store(conn, delivery_id, verb, by, now), state)
    if verb == "stop" and state not in _RUNNING:
        return _give_up(conn, delivery, by, now)
    # Perhaps started already, and the answer was lost. To resume it means nothing: that would replace the start.
    starting = verb == "pause" and state is S.READY and delivery.ordered == "start"
    if state not in _RUNNING and not starting:
        allowed = ", ".join(accepting.label for accepting in states_accepting(VERBS[verb]))
        raise Conflict(f"delivery {delivery_id} is {state.label}: {verb} is not possible", f"possible while {allowed}")
    return Ordered(verb, _store(conn, delivery_id, verb, by, now), state)


def carry_order(context: Context) -> Report:
    """Do one slice of the job ``order``: send the last unconfirmed order of delivery ``context.subject`` to the mid."""
    with context.database.connection() as conn:
        delivery = deliveries.get(conn, context.subject)
    if not delivery.is_unconfirmed:
        return Report(note="nothing is left to confirm")
    verb, is_known = delivery.ordered or "", True
    if verb == "start" and delivery.contact_at is not None:
        early = (delivery.contact_at - context.clock.now()).total_seconds()
        if early > 0:
            context.progress({"phase": "waiting for the contact date", "at": delivery.contact_at.isoformat()})
            return Report(more_after_seconds=min(early, LOOK_AGAIN_SECONDS))
    try:
        with accounts.open_client(context.database, context.home, delivery.account, context.clock) as client:
            answer = client.command(delivery.id, verb)
    except LinkFailure as exc:
        return Report(more_after_seconds=_tell(context, delivery, exc))
    except RemoteRefused as exc:
        if exc.status == 404 and verb == "stop" and not isinstance(exc, NotAMid):  # nothing is to be stopped there
            answer = CommandAnswer(state=int(S.STOPPED), revision=delivery.mid_revision)
            is_known = False
        elif exc.status == 409 and verb == "pause" and delivery.state == S.READY:
            return _withdrawn(context, delivery)
        else:
            _tell(context, delivery, exc)
            _refused(context, delivery, exc)
            raise
    if verb == "stop":
        cancelling.cancel_unsent(context, delivery, is_known=is_known)
    _confirmed(context, delivery, verb, answer)
    return Report(rows_written=1, note=f"{verb} confirmed: {S(answer.state).label}")


JOB = JobKind("order", carry_order)


def _send(conn: Connection, delivery: Delivery, by: str, now: datetime) -> Ordered:
    """Start a delivery, or the chain that leads there from where it stands."""
    state = S(delivery.state)
    if delivery.recurrence:
        return _begin_recurring(conn, delivery, now)
    if state not in _PREPARED:
        conn.execute(
            "update delivery set confirmed_at = coalesce(confirmed_at, %s), version = version + 1 where id = %s",
            (now, delivery.id),
        )
        if state is S.PREPARATION_FAILED:
            deliveries.start_preparation(conn, delivery.id)
        kind = "handover" if state is S.MESSAGE_FINALISED else "prepare"
        return Ordered("start", jobs.ask(conn, kind, delivery.id, by), state)
    if state is not S.READY:
        raise Conflict(f"delivery {delivery.id} is {state.label} already", "see `midsource delivery show`")
    return Ordered("start", _store(conn, delivery.id, "start", by, now), state)


def plan_of(delivery: Delivery) -> Plan:
    """Return the plan of a recurring delivery's ticks. Raises UserError for a schedule that cannot be read."""
    return plan(delivery.recurrence, delivery.recurrence_zone, valid_to=delivery.recurrence_until)


def _begin_recurring(conn: Connection, delivery: Delivery, now: datetime) -> Ordered:
    """Let a recurring delivery make one of itself from its next tick on (marketing/recurring.py)."""
    state = S(delivery.state)
    if delivery.recurrence_next_at is not None or state is not S.EDITED:
        raise Conflict(f"delivery {delivery.id} recurs already, or is over", "see `midsource delivery show`")
    ticks = plan_of(delivery)
    next_at = ticks.next_tick(now)
    if next_at is None:
        raise Conflict(f"delivery {delivery.id} never recurs: {ticks.why_over(now)}", "change its schedule")
    conn.execute(
        "update delivery set confirmed_at = coalesce(confirmed_at, %s), recurrence_next_at = %s, modified_at = now(), "
        "version = version + 1 where id = %s",
        (now, next_at, delivery.id),
    )
    return Ordered("start", "", state)


def _give_up(conn: Connection, delivery: Delivery, by: str, now: datetime) -> Ordered:
    """Stop a delivery that does not run: here at once, on the mid as soon as it answers (it may hold parts)."""
    state = deliveries.transition(conn, delivery.id, E.STOP)
    conn.execute(
        "update delivery set confirmed_at = null, recurrence_next_at = null, finished_at = %s where id = %s",
        (now, delivery.id),
    )
    if delivery.targeted is None:  # nobody was targeted, so neither side has a row
        return Ordered("stop", "", state)
    return Ordered("stop", _store(conn, delivery.id, "stop", by, now), state)


def _store(conn: Connection, delivery_id: int, verb: str, by: str, now: datetime) -> str:
    conn.execute(
        "update delivery set ordered = %(verb)s, ordered_at = %(now)s, order_confirmed_at = null, version = version + 1, "
        "confirmed_at = case when %(verb)s = 'start' then coalesce(confirmed_at, %(now)s) else confirmed_at end, "
        "modified_at = now() where id = %(id)s",
        {"verb": verb, "now": now, "id": delivery_id},
    )
    return jobs.ask(conn, "order", delivery_id, by)


def store_start(conn: Connection, delivery_id: int, now: datetime) -> None:
    """Store the start that an operator had confirmed before the delivery was ready; its job follows the hand-over."""
    conn.execute(
        "update delivery set ordered = 'start', ordered_at = %s, order_confirmed_at = null, version = version + 1 "
        "where id = %s and confirmed_at is not null and ordered is null",
        (now, delivery_id),
    )


def _confirmed(context: Context, delivery: Delivery, verb: str, answer: CommandAnswer) -> None:
    """Copy the mid's state, and confirm the order unless another replaced it meanwhile."""
    with context.database.transaction() as conn:
        conn.execute(
            "update delivery set order_confirmed_at = clock_timestamp(), error = '', version = version + 1 "
            "where id = %s and ordered = %s and ordered_at = %s",
            (delivery.id, verb, delivery.ordered_at),
        )
        conn.execute(
            "update delivery set state = %s, mid_revision = %s, "
            "started_at = case when %s = 'start' then coalesce(started_at, clock_timestamp()) else started_at end, "
            "modified_at = clock_timestamp() where id = %s and mid_revision <= %s and state not in (85, 87, 95)",
            (answer.state, answer.revision, verb, delivery.id, answer.revision),
        )
        accounts.answered(conn, delivery.account)
        if verb == "stop":  # stored parts hold addresses and names, and are never sent again
            conn.execute("update upload_part set body = null where delivery_id = %s", (delivery.id,))
        if verb in ("start", "resume"):
            conn.execute(_WAKE, {"names": list(FOLLOWERS), "after": AFTER_RUN_SECONDS})
    context.say("info", f"{Method.COMMAND} {verb}: confirmed, the delivery is {S(answer.state).label}")


def _refused(context: Context, delivery: Delivery, exc: RemoteRefused) -> None:
    """Keep the mid's sentence; an order that its state forbids (409) is over, any other refusal is ours to mend."""
    with context.database.transaction() as conn:
        conn.execute("update delivery set error = %s where id = %s", (str(exc), delivery.id))
        if exc.status == 409:
            conn.execute(
                "update delivery set ordered = null, ordered_at = null, version = version + 1, "
                "confirmed_at = case when ordered = 'start' then null else confirmed_at end "
                "where id = %s and ordered = %s and ordered_at = %s",
                (delivery.id, delivery.ordered, delivery.ordered_at),
            )


def _withdrawn(context: Context, delivery: Delivery) -> Report:
    """Take back a start that never reached the mid: a pause replaced it, and the mid says that nothing runs."""
    with context.database.transaction() as conn:
        conn.execute(
            "update delivery set ordered = null, ordered_at = null, confirmed_at = null, version = version + 1 "
            "where id = %s and ordered = 'pause' and ordered_at = %s",
            (delivery.id, delivery.ordered_at),
        )
    context.say("info", f"{Method.COMMAND} pause: the delivery was not started yet, its start is withdrawn")
    return Report(note="the start is withdrawn")


def _tell(context: Context, delivery: Delivery, exc: LinkFailure | RemoteRefused) -> float:
    """Record a failed call; return the pause before the next."""
    with context.database.connection() as conn:
        attempt = link_journal.next_attempt(conn, delivery.account, Method.COMMAND, delivery.id)
    retry_after = exc.retry_after_seconds if isinstance(exc, LinkFailure) else None
    seconds = pause_seconds(attempt, retry_after, _chance())
    following = link_journal.in_seconds(seconds) if isinstance(exc, LinkFailure) else exc.remedy
    call = Call(delivery.account, Method.COMMAND, delivery.ordered or "", delivery.id)
    link_journal.record(context, call, exc, attempt, following)
    return seconds

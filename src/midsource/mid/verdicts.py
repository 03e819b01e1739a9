"""What one try, or none, means for a message of ours: pure. `policy.classify` judges, `policy.retry` plans.

Put off with no retry left, or none before the end of validity, is *exhausted*. Lost (the body was under way) is
uncertain; where the delivery's policy says *resend* it is tried again by the same ladder, else it waits for evidence.
"""

from __future__ import annotations

from datetime import datetime

from midsource.mid.dispatch import Lease, Message
from midsource.mid.records import Outcome
from midsource.mid.render import Prepared
from midsource.model.message import MessageEvent, Reason
from midsource.model.outcome import Attempt, Lost, Stage
from midsource.policy.classify import BounceRules, classify
from midsource.policy.retry import next_attempt

E = MessageEvent
_ACCEPTED = E.ACCEPTED


def judge(
    lease: Lease, prepared: Prepared, message: Message, message_id: str, attempt: Attempt, rules: BounceRules,
    now: datetime, chance: float,
) -> Outcome:  # fmt: skip
    """Return what ``attempt`` came to. ``chance`` in [0, 1) spreads retries."""
    verdict = classify(attempt, rules)
    event, again_at = verdict.event, None
    if event is _ACCEPTED:
        return _outcome(lease, message, event, verdict.reason, attempt, now, message_id, counts=True)
    if event is E.PUT_OFF or (event is E.LOST and prepared.resends):
        again_at = next_attempt(message.attempts + 1, prepared.retry, prepared.valid_until or now, now, chance)
    if event is E.PUT_OFF and again_at is None:
        event = E.EXHAUSTED
    reason = Reason.OURS if event is E.UNRENDERABLE else verdict.reason
    tried = event is not E.UNRENDERABLE
    return _outcome(lease, message, event, reason, attempt, now, message_id, counts=tried, again_at=again_at)


def unrenderable(lease: Lease, message: Message, why: str, now: datetime) -> Outcome:
    """Return the outcome of a message that cannot be made: a fault of ours, of this recipient's copy alone."""
    return _outcome(lease, message, E.UNRENDERABLE, Reason.OURS, Attempt(Stage.RENDER, Lost(why)), now, counts=False)


def expired(lease: Lease, message: Message, now: datetime) -> Outcome:
    """Return the outcome of a message whose delivery's validity is over before this try."""
    if message.attempts:
        why = Attempt(Stage.RESOLVE, Lost(""))  # the last answer stands
        return _outcome(lease, message, E.EXHAUSTED, Reason(message.reason), why, now, counts=False)
    why = Attempt(Stage.RESOLVE, Lost("the validity of the delivery was over before the first try"))
    return _outcome(lease, message, E.CANCEL, Reason.NONE, why, now, counts=False)


def cancelled(lease: Lease, message: Message, now: datetime) -> Outcome:
    """Return the outcome of a message that was held when its delivery was stopped."""
    why = Attempt(Stage.RESOLVE, Lost("the delivery was stopped"))
    return _outcome(lease, message, E.CANCEL, Reason.NONE, why, now, counts=False)


def _outcome(
    lease: Lease, message: Message, event: MessageEvent, reason: Reason, attempt: Attempt, now: datetime,
    message_id: str = "", *, counts: bool, again_at: datetime | None = None,
) -> Outcome:  # fmt: skip
    return Outcome(
        account_id=lease.account_id,
        delivery_id=lease.delivery_id,
        id=message.id,
        batch_id=lease.batch_id,
        token=lease.token,
        event=str(event),
        reason=int(reason),
        reply=str(attempt.answer),
        stage=str(attempt.stage),
        event_at=now,
        message_id=message_id,
        counts_attempt=counts,
        again_at=again_at,
        destination=lease.destination,
    )

"""Preparation checks on figures and times, pure: each returns what is wrong as a sentence, or None.

Checks on content are in ``mail.checks``; the preparation stores both kinds as findings.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from midsource.model.message import Reason

SLOWEST_RATE = 20.0
"""Messages a second that even a strictly throttled provider mix takes: 100 000 in 83 minutes."""


def spoken(seconds: float) -> str:
    """Say a length of time with its largest exact units: ``5d``, ``36h``, ``1h 30min``."""
    rest, words = round(seconds), []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count:
            words.append(f"{count}{unit}")
    return " ".join(words[:2]) or "0s"


def validity_against_retries(validity_seconds: int, retry_count: int, retry_period_seconds: int) -> str | None:
    """Warn when the last retry would come after the end of validity."""
    needed = retry_count * retry_period_seconds
    if needed <= validity_seconds:
        return None
    fit = validity_seconds // retry_period_seconds
    return (
        f"The validity of {spoken(validity_seconds)} ends before the last of {retry_count} retries "
        f"({spoken(needed)}): only {fit} fit; lengthen the validity or retry sooner."
    )


def validity_against_volume(validity_seconds: int, messages: int) -> str | None:
    """Warn when so many messages may not leave within the validity at SLOWEST_RATE."""
    needed = messages / SLOWEST_RATE
    if needed <= validity_seconds:
        return None
    return (
        f"{messages} messages can take {spoken(needed)} where providers throttle, and the validity is "
        f"{spoken(validity_seconds)}: lengthen it, or some may expire unsent."
    )


def contact_date_passed(contact_at: datetime | None, validity_seconds: int, now: datetime) -> str | None:
    """Refuse a contact date whose validity is already over."""
    if contact_at is None or contact_at + timedelta(seconds=validity_seconds) > now:
        return None
    return f"The contact date {contact_at.isoformat()} and its validity are over: choose a later date."


def contact_date_in_the_past(contact_at: datetime | None, validity_seconds: int, now: datetime) -> str | None:
    """Warn when the contact date is behind us and its validity is not yet over: it holds nothing back."""
    if contact_at is None or not contact_at < now < contact_at + timedelta(seconds=validity_seconds):
        return None
    return f"The contact date {contact_at.isoformat()} is in the past: the delivery starts as soon as it is sent."


def nobody_left(targeted: int, to_deliver: int, excluded: Mapping[Reason, int]) -> str | None:
    """Refuse a delivery that nobody would get, and say why nobody."""
    if to_deliver > 0:
        return None
    if targeted == 0:
        return "The target is empty: nobody is on the list and meets the condition."
    why = ", ".join(f"{n} {reason.label}" for reason, n in sorted(excluded.items(), key=lambda item: -item[1]))
    return f"All {targeted} targeted people are excluded ({why}): nobody is left to deliver to."


def prepared_differs(prepared: int, to_deliver: int) -> str | None:
    """Refuse when the parts hold more or fewer people than the log says (F16, F70)."""
    if prepared == to_deliver:
        return None
    if prepared < to_deliver:
        missing = to_deliver - prepared
        return f"{missing} of {to_deliver} people were erased while the delivery was prepared: prepare it again."
    return f"The parts hold {prepared} messages and the log says {to_deliver}: prepare the delivery again."

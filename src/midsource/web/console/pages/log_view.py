"""Reasons of log rows as pages name them."""

from __future__ import annotations

from midsource.marketing.delivery_log import KNOWN_REASONS
from midsource.model.message import Reason


def reason_of(number: int) -> Reason:
    """Return the reason; a newer mid may give one that this version does not know, which is then none of ours."""
    return Reason(number) if number in KNOWN_REASONS else Reason.NONE

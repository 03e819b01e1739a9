"""Bounds of a delivery's lengths of time, in seconds."""

from __future__ import annotations

from midsource.policy.retry import MAX_PERIOD_SECONDS, MIN_PERIOD_SECONDS

VALIDITY_SECONDS = (60, 31_536_000)
"""A minute to a year: the bounds of the link and of the table."""
RETRY_PERIOD_SECONDS = (MIN_PERIOD_SECONDS, MAX_PERIOD_SECONDS)

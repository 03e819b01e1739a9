"""Whether results are to be expected of a mid: its deliveries run, wait for retries, or are over."""

from __future__ import annotations

from typing import Literal

from midsource.engine.work import Context
from midsource.model.delivery import DeliveryState
from midsource.store.database import scalar

Activity = Literal["busy", "retrying", "idle"]
SLOW_PERIOD_SECONDS = 30.0
"""Deliveries that only wait for their retries are looked at this often, or each retry period where that is shorter."""
BUSY = (DeliveryState.START_PENDING, DeliveryState.IN_PROGRESS, DeliveryState.PAUSE_REQUESTED, DeliveryState.PAUSING)


def activity_of(context: Context, account: str) -> Activity:
    """Say whether results are to be expected now: a running delivery, one that waits for retries, or nothing."""
    with context.database.connection() as conn:
        states = scalar(
            conn,
            "select array_agg(distinct state) from delivery where account = %s and state not in (85, 87, 95)",
            (account,),
        )
    if any(state in states for state in BUSY) if states else False:
        return "busy"
    return "retrying" if DeliveryState.RETRY in (states or ()) else "idle"


def slow_period(context: Context, account: str) -> float:
    """Return the seconds until the next look at an account whose deliveries wait for their retries."""
    with context.database.connection() as conn:
        shortest = scalar(
            conn,
            "select min(retry_period_seconds) from delivery where account = %s and state = %s",
            (account, DeliveryState.RETRY),
        )
    return min(SLOW_PERIOD_SECONDS, shortest or SLOW_PERIOD_SECONDS)

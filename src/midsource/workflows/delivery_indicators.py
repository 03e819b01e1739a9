"""Delivery indicators: a mid's counters of its deliveries recounted against the ledger, every hour.

*Reads* `message`, `message_total`, `feed_batch` of deliveries under way and of those that ended in the last two hours. *Writes* a
tally that corrects `message_total` where it is not what the ledger says; ends messages whose validity is over, where no
mta process did; `delivery_count`, when each was counted. *Pointer*: that time: the next slice goes on with what this run has
not counted, those first that waited longest.

*Bounds*: a slice is at most 45 s, 2 000 deliveries; a delivery is one statement of 20 s at most, after a run that ran into
that of what each statement of the next one has (engine/circuit.py).

*When it fails*: a delivery that cannot be counted in time is left until the next run and named at the end of this one, the
others are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from midsource.engine.work import Context, Report, run_began
from midsource.mid import expiry, indicators, reconcile
from midsource.store.database import Database, StatementTimeout

NAME = "deliveryIndicators"
LABEL = "Delivery indicators"
SCHEDULE = "every hour"
ROLES = ("mid",)
SLICE_SECONDS = 45.0
EXPIRED_PAGES = 20
"""Pages of 5 000 messages ended in one run where no mta process does it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Nothing can be set for it."""


def run_once(context: Context, settings: Settings | None = None) -> Report:  # noqa: ARG001 - the one shape
    """Do one slice: end what is over, then count what may have moved and was not counted in this run."""
    database, now, began = context.database, context.clock.now(), run_began(context)
    deadline = context.clock.boot_seconds() + SLICE_SECONDS
    ended = _end_expired(database, now)
    with database.connection() as conn:
        found = indicators.named(conn, now, began)
    counted = corrected = 0
    for account_id, delivery_id in found:
        if counted and context.clock.boot_seconds() > deadline:
            return Report(rows_read=counted, rows_written=corrected + ended, more_after_seconds=0.0)
        context.beat()
        counted += 1
        try:
            wrong = indicators.drift(database, account_id, delivery_id)
            if wrong and reconcile.recount(database, account_id, delivery_id, now):
                corrected += 1
                context.say(
                    "warning", f"{wrong} counters of delivery {delivery_id} were not its ledger's and are corrected"
                )
            indicators.mark(database, account_id, delivery_id, is_slow=False)
        except StatementTimeout:
            indicators.mark(database, account_id, delivery_id, is_slow=True)
    if len(found) == indicators.MOST:  # there may be more of them than are named at once
        return Report(rows_read=counted, rows_written=corrected + ended, more_after_seconds=0.0)
    with database.connection() as conn:
        slow = indicators.slow(conn, began)
    if slow:
        raise StatementTimeout(
            f"{len(slow)} deliveries could not be counted in time: {', '.join(map(str, slow[:20]))}",
            "see `midsource maintenance status`: the ledger may be bloated",
        )
    return Report(rows_read=counted, rows_written=corrected + ended)


def _end_expired(database: Database, now: datetime) -> int:
    ended = 0
    for _ in range(EXPIRED_PAGES):
        page = expiry.end_expired(database, now)
        ended += page
        if not page:
            break
    return ended

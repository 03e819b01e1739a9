"""Delivery indicators: a mid's counters of its deliveries recounted against the ledger, every hour.

*Reads* `message`, `message_total`, `feed_batch` of deliveries under way and of those that ended in the last two hours. *Writes* a
tally that corrects `message_total` where it is not what the ledger says; ends messages whose validity is over, where no
mta process did. *Pointer*: none within a run; a run that was cut begins anew.

*Bounds*: a slice is at most 45 s, 2 000 deliveries; a delivery is one statement of 20 s at most.

*When it fails*: a delivery that cannot be counted in time is named and left, the others are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from midsource.engine.work import Context, Report
from midsource.mid import expiry, indicators, reconcile
from midsource.model.errors import Failed
from midsource.store.database import StatementTimeout

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
    """Count every delivery that may have moved; what no longer fits into the slice waits for the next run."""
    database, now = context.database, context.clock.now()
    deadline = context.clock.boot_seconds() + SLICE_SECONDS
    ended = 0
    for _ in range(EXPIRED_PAGES):
        page = expiry.end_expired(database, now)
        ended += page
        if not page:
            break
    with database.connection() as conn:
        found = indicators.named(conn, now)
    counted = corrected = 0
    slow: list[str] = []
    for account_id, delivery_id in found:
        if context.clock.boot_seconds() > deadline:
            context.say("warning", f"{len(found) - counted} deliveries were not counted in this run: it was over")
            break
        context.beat()
        counted += 1
        try:
            wrong = indicators.drift(database, account_id, delivery_id)
            if wrong and reconcile.recount(database, account_id, delivery_id, now):
                corrected += 1
                context.say(
                    "warning", f"{wrong} counters of delivery {delivery_id} were not its ledger's and are corrected"
                )
        except StatementTimeout:
            slow.append(str(delivery_id))
    if slow:
        raise Failed(
            f"{len(slow)} deliveries could not be counted in {indicators.COUNT_SECONDS} s: {', '.join(slow[:20])}",
            "see `midsource maintenance status`: the ledger may be bloated",
        )
    return Report(rows_read=counted, rows_written=corrected + ended)

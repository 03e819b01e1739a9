"""Delivery counters: what each mid says about its deliveries, every ten minutes and at once while one runs.

*Reads* ``feed/deliveries`` of every active external account. *Writes* `delivery.figures`, `figures_at`, `state` (from
*start pending* on the mid's word counts), `started_at`, `finished_at`, `mid_revision`; drops the stored parts of a finished
delivery; compares the log's totals with its rows once a delivery has ended (the rows win). *Pointer*: option `NmsMidSourcing_LastDelivery_<account>`, moved in the transaction of each page; a run that
found nothing moves it to the time of that look.

*Bounds*: a slice is at most 100 pages and 50 s; an old pointer costs many small pages, and the last 48 hours come first.

*When it fails*: an account that cannot be read fails by itself; after five tries the run is marked failed and names it,
or the workflow is while a delivery of another account keeps the run going.
The next run goes on from the pointer. Running it twice, or setting the pointer back, changes nothing that is newer.
"""

from __future__ import annotations

from dataclasses import dataclass

from midsource.engine.work import Context, Report
from midsource.marketing import sync, totals

NAME = "defaultMidSourcingDlv"
LABEL = "Mid-sourcing (delivery counters)"
SCHEDULE = "every 10 minutes"
ROLES = ("marketing",)


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be set for it. ``accounts``: internal names of the external accounts to read; empty: all active ones."""

    accounts: tuple[str, ...] = ()


def run_once(context: Context, settings: Settings | None = None) -> Report:
    """Do one slice."""
    report = sync.pull(context, "deliveries", (settings or Settings()).accounts)
    totals.recount_ended(context.database, context.say)
    return report

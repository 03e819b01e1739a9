"""Delivery logs: what became of each message, every hour and at once while a delivery runs.

*Reads* ``feed/logs`` of every active external account; while a delivery runs the call waits at the mid, so results arrive
within a second. *Writes* `broad_log` (state, reason, attempts, reply), forward only by the mid's revision, and
`broad_log_total` by what that very statement changed. *Pointer*: option `NmsMidSourcing_LastBroadLog_<account>`, moved in
the transaction of each page; a run that found nothing moves it to the time of that look.

*Bounds*: a slice is at most 100 pages of at most 10 000 rows, and 50 s. A page that times out is halved and asked again; an
old pointer costs many small pages, and the last 48 hours come first, so today's results never wait behind old ones.

*When it fails*: an account that cannot be read fails by itself; after five tries the run is marked failed and names it,
or the workflow is while a delivery of another account keeps the run going.
The next run goes on from the pointer. Rows of erased people or unknown deliveries are counted as refused and pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from midsource.engine.work import Context, Report
from midsource.marketing import sync

NAME = "defaultMidSourcingLog"
LABEL = "Mid-sourcing (delivery logs)"
SCHEDULE = "7 * * * *"
"""Hourly, off the full hour: ten-minute counters and nightly work start there (F43)."""
ROLES = ("marketing",)


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be set for it. ``accounts``: internal names of the external accounts to read; empty: all active ones."""

    accounts: tuple[str, ...] = ()


def run_once(context: Context, settings: Settings | None = None) -> Report:
    """Do one slice."""
    return sync.pull(context, "logs", (settings or Settings()).accounts)

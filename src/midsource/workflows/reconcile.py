"""Reconciliation: both sides of every delivery compared, differences repaired and reported, every hour.

*Reads* the ledger of the mids (``GET deliveries/{id}/reconcile``) and the delivery log: deliveries under way, those that
ended in the last seven days, and those that a recorded gap may concern (an option set forward by hand, results gone, a mid
restored). *Writes* `broad_log` and `broad_log_total` where they differ from the ledger, the delivery's state and figures,
`reconcile_report`, `pull_gap`. A mid that was restored is told first what the log knows, and sends again then
(marketing/telling.py). *Pointer*: none; a report under way says at which block it goes on.

*Bounds*: a slice is at most 45 s; a comparison is cut between two spans of 100 000 rows. Calls, blocks, rows: wire/blocks.py.

*When it fails*: a delivery that cannot be compared is named at the end, the others go on; of an account that does not answer
at all none is tried in that slice. A run that
is repeated finds what is repaired already to be right.
"""

from __future__ import annotations

from dataclasses import dataclass

from midsource.engine.work import Cancelled, Context
from midsource.engine.work import Report as Done
from midsource.marketing import accounts, gaps, reconcile, reconcile_reports, telling
from midsource.marketing.reconcile_reports import Report
from midsource.model.errors import Failed, MidsourceError, RemoteRefused
from midsource.wire.failures import LinkFailure

NAME = "reconcile"
LABEL = "Reconciliation"
SCHEDULE = "37 * * * *"
"""Hourly, when neither counters nor logs start."""
ROLES = ("marketing",)
SLICE_SECONDS = 45.0
"""Below the engine's 60 s, so that the last call's own time fits in."""
TOLD = 20
"""Reports that found something and have a line in the journal of one slice; failures that its error names."""
MAX_CAUSE = 300


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be set for it. ``accounts``: internal names of the external accounts to compare; empty: all active ones."""

    accounts: tuple[str, ...] = ()


def run_once(context: Context, settings: Settings | None = None) -> Done:
    """Do one slice."""
    wanted = (settings or Settings()).accounts
    with context.database.connection() as conn:
        due = [item for item in gaps.due(conn, context.clock.now()) if not wanted or item[1] in wanted]
        active = [one.name for one in accounts.list_accounts(conn) if one.active and (not wanted or one.name in wanted)]
    run = _Run(context)
    for account in active:
        if not run.tell(account):
            return run.done(more=True)
    for delivery_id, account in due:
        if not run.compare(delivery_id, account):
            return run.done(more=True)
    with context.database.transaction() as conn:
        filled = gaps.fill(conn)
        reconcile_reports.forget_old(conn, context.clock.now())
    for gap in filled:
        context.say("info", f"the gap of {gap.account} ({gap.cause}, {gap.from_at:%Y-%m-%d %H:%M} UTC on) is filled")
    if run.failures:
        raise Failed(
            f"{len(run.failures)} deliveries could not be compared: " + "; ".join(list(run.failures.values())[:TOLD]),
            "see `midsource account test`; the next run compares them again",
        )
    return run.done(more=False)


class _Run:
    """One slice: what it compared, and the accounts that failed in it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._deadline = context.clock.boot_seconds() + SLICE_SECONDS
        self._reports: list[Report] = []
        self._silent: dict[str, str] = {}
        """Accounts whose mid does not answer, and why: none of their deliveries is compared in this slice."""
        self.failures: dict[int, str] = {}

    def tell(self, account: str) -> bool:
        """Tell a mid that was restored what is known here, so that it may send; False when the slice is over."""
        context = self._context
        try:
            with accounts.open_client(context.database, context.home, account, context.clock) as client:
                return telling.tell(context, client, account, self._deadline)
        except MidsourceError as exc:
            if not isinstance(exc, RemoteRefused) or exc.status != 404:  # a mid of an earlier version holds nothing
                context.say("warning", f"{account} could not be asked whether it was restored: {exc.cause}")
                self._silent[account] = exc.cause
            return True

    def compare(self, delivery_id: int, account: str) -> bool:
        """Compare one delivery, alone with whatever goes wrong; False when the slice is over."""
        context = self._context
        if account in self._silent:
            self.failures[delivery_id] = f"delivery {delivery_id} with {account}: {self._silent[account]}"
            return True
        if context.clock.boot_seconds() + reconcile.LEAST_SECONDS > self._deadline:
            return False
        context.beat()
        with context.database.transaction() as conn:
            now = context.clock.now()
            report = reconcile_reports.begin(conn, delivery_id, account, reconcile_reports.SCHEDULE, now, dry_run=False)
        try:
            with accounts.open_client(context.database, context.home, account, context.clock) as client:
                is_over = reconcile.compare(context, client, report, self._deadline)
        except Cancelled:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever one delivery's rows hold, the others go on
            self._failed(delivery_id, account, exc)
            return True
        if is_over:
            self._reports.append(report)
            if not report.is_clean and len(self._reports) <= TOLD:
                context.say("warning", report.sentence())
        return is_over

    def _failed(self, delivery_id: int, account: str, exc: Exception) -> None:
        """Leave the delivery to the next run; the whole account where its mid does not answer at all."""
        cause = exc.cause if isinstance(exc, MidsourceError) else f"{type(exc).__name__}: {exc}"[:MAX_CAUSE]
        self._context.say("warning", f"delivery {delivery_id} could not be compared with {account}: {cause}")
        self.failures[delivery_id] = f"delivery {delivery_id} with {account}: {cause}"
        if isinstance(exc, RemoteRefused) or (isinstance(exc, LinkFailure) and not exc.reached):
            self._silent[account] = cause

    def done(self, *, more: bool) -> Done:
        """Say what the slice did."""
        found = sum(report.differences for report in self._reports)
        return Done(
            rows_read=sum(report.rows for report in self._reports),
            rows_written=sum(report.repaired for report in self._reports),
            more_after_seconds=0.0 if more else None,
            note=f"{len(self._reports)} deliveries compared, {found} rows differed",
        )

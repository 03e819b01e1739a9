"""Reconciliation: both sides of every delivery compared, differences repaired and reported, every hour.

*Reads* the ledger of the mids (``GET deliveries/{id}/reconcile``) and the delivery log: deliveries under way, those that
ended in the last seven days, and those that a recorded gap may concern (an option set forward by hand, results gone, a mid
restored). *Writes* `broad_log` and `broad_log_total` where they differ from the ledger, the delivery's state and figures,
`reconcile_report`, `pull_gap`. A mid that was restored is told first what the log knows, and sends again then
(marketing/telling.py). *Pointer*: none; a report under way says at which block it goes on.

*Bounds*: a slice is at most 45 s, 20 s of them for telling; a comparison is cut between two spans of 100 000 rows. Calls,
blocks, rows: wire/blocks.py.

*When it fails*: a delivery that cannot be compared is left until the next run, and so is an account that does not answer at
all; the others go on, and the end of the run names what failed in it. A run that is repeated finds what is repaired already
to be right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from midsource.engine import circuit
from midsource.engine.work import Cancelled, Context, run_began
from midsource.engine.work import Report as Done
from midsource.marketing import accounts, failed_tries, gaps, reconcile, reconcile_reports, telling
from midsource.marketing.failed_tries import FailedTry, Step
from midsource.marketing.reconcile_reports import Report
from midsource.model.errors import MidsourceError, RemoteRefused

NAME = "reconcile"
LABEL = "Reconciliation"
SCHEDULE = "37 * * * *"
"""Hourly, when neither counters nor logs start."""
ROLES = ("marketing",)
SLICE_SECONDS = 45.0
"""Below the engine's 60 s, so that the last call's own time fits in."""
TELLING_SECONDS = 20.0
"""Of a slice, for mids that were restored and for those that do not even say: deliveries are compared in what is left."""
TOLD = 20
"""Reports that found something and have a line in the journal of one slice; failures that its error names."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be set for it. ``accounts``: internal names of the external accounts to compare; empty: all active ones."""

    accounts: tuple[str, ...] = ()


def run_once(context: Context, settings: Settings | None = None) -> Done:
    """Do one slice."""
    wanted = (settings or Settings()).accounts
    with context.database.connection() as conn:
        active = [one.name for one in accounts.list_accounts(conn) if one.active and (not wanted or one.name in wanted)]
    run = _Run(context, active)
    for account in active:
        run.tell(account)
    for delivery_id, account in run.due(run.answering):
        if not run.compare(delivery_id, account):
            return run.done(more=True)
    if run.untold:
        return run.done(more=True)
    with context.database.transaction() as conn:
        filled = gaps.fill(conn)
        reconcile_reports.forget_old(conn, context.clock.now())
    for gap in filled:
        context.say("info", f"the gap of {gap.account} ({gap.cause}, {gap.from_at:%Y-%m-%d %H:%M} UTC on) is filled")
    run.raise_failures()
    return run.done(more=False)


class _Run:
    """One slice: what it compared; and of the whole run, what failed in it (marketing/failed_tries.py)."""

    def __init__(self, context: Context, active: list[str]) -> None:
        self._context = context
        self._active = active
        self._began_at = run_began(context)
        self._deadline = context.clock.boot_seconds() + SLICE_SECONDS
        self._told_by = context.clock.boot_seconds() + TELLING_SECONDS
        self._reports: list[Report] = []
        self._silent = {each.account for each in self._failures() if not each.delivery_id}
        """Accounts whose mid does not answer: none of their deliveries is compared in this run."""
        self.untold: set[str] = set()
        """Accounts that are not asked yet whether they were restored, or not told to the end."""

    @property
    def answering(self) -> list[str]:
        """Accounts whose deliveries can be compared in this slice."""
        return [name for name in self._active if name not in self._silent and name not in self.untold]

    def due(self, names: Sequence[str]) -> list[tuple[int, str]]:
        """Return the deliveries of these accounts to be compared, without those that failed in this run."""
        with self._context.database.connection() as conn:
            return gaps.due(conn, self._context.clock.now(), self._began_at, names)

    def tell(self, account: str) -> None:
        """Tell a mid that was restored what is known here, so that it may send."""
        context = self._context
        if account in self._silent:
            return
        if context.clock.boot_seconds() > self._told_by:
            self.untold.add(account)
            return
        context.beat()
        try:
            with accounts.open_client(context.database, context.home, account, context.clock) as client:
                if not telling.tell(context, client, account, self._told_by):
                    self.untold.add(account)
        except MidsourceError as exc:
            if not isinstance(exc, RemoteRefused) or exc.status != 404:  # a mid of an earlier version holds nothing
                cause = self._note(account, exc)
                context.say("warning", f"{account} could not be asked whether it was restored: {cause}")

    def compare(self, delivery_id: int, account: str) -> bool:
        """Compare one delivery, alone with whatever goes wrong; False when the slice is over."""
        context = self._context
        if account in self._silent:
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
            with context.database.transaction() as conn:
                failed_tries.forget(conn, Step.COMPARISON, account, delivery_id)
            self._reports.append(report)
            if not report.is_clean and len(self._reports) <= TOLD:
                context.say("warning", report.sentence())
        return is_over

    def _failed(self, delivery_id: int, account: str, exc: Exception) -> None:
        """Leave the delivery to the next run; the whole account where its mid does not answer at all."""
        cause = self._note(account, exc, 0 if failed_tries.is_of_account(exc) else delivery_id)
        self._context.say("warning", f"delivery {delivery_id} could not be compared with {account}: {cause}")

    def _note(self, account: str, exc: Exception, delivery_id: int = 0) -> str:
        with self._context.database.transaction() as conn:
            noted = failed_tries.note(conn, Step.COMPARISON, account, exc, delivery_id=delivery_id)
        if not delivery_id:
            self._silent.add(account)
        return noted.cause

    def _failures(self) -> list[FailedTry]:
        with self._context.database.connection() as conn:
            noted = failed_tries.since(conn, Step.COMPARISON, self._began_at)
        return [each for each in noted if each.account in self._active]

    def raise_failures(self) -> None:
        """Raise where a delivery could not be compared in this run, or was left because its mid does not answer: what all wait for."""
        noted = self._failures()
        why = {each.account: each.cause for each in noted if not each.delivery_id}
        failed = [(each.delivery_id, each.account, each.cause) for each in noted if each.delivery_id]
        failed += [(delivery_id, account, why[account]) for delivery_id, account in self.due(list(why))]
        if failed:
            named = [f"delivery {delivery_id} with {account}: {cause}" for delivery_id, account, cause in failed[:TOLD]]
            raise circuit.common(each.kind for each in noted)(
                f"{len(failed)} deliveries could not be compared: " + "; ".join(named),
                "see `midsource account test`; the next run compares them again",
            )

    def done(self, *, more: bool) -> Done:
        """Say what the slice did."""
        found = sum(report.differences for report in self._reports)
        return Done(
            rows_read=sum(report.rows for report in self._reports),
            rows_written=sum(report.repaired for report in self._reports),
            more_after_seconds=0.0 if more else None,
            note=f"{len(self._reports)} deliveries compared, {found} rows differed",
        )

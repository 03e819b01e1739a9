"""Delivery statistics: what became of messages by recipient domain, from each mid, every hour.

*Reads* ``GET deliveries/{id}/statistics`` of deliveries under way and of those that ended in the last seven days. *Writes*
`delivery_stat`, replaced as a whole in one transaction, and `delivery_stat_read`. *Pointer*: none; each answer is all of it.

*Bounds*: a slice is at most 45 s; an answer names the 1 000 largest domains and sums the rest.

*When it fails*: a delivery that cannot be read is left until the next run, and so is a mid that does not answer at all; the
others go on, and the end of the run names what failed in it. Once everything was pulled and nothing moves the sums must equal the log's totals: else the
delivery is compared row by row by `reconcile`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from midsource.engine import circuit
from midsource.engine.work import Cancelled, Context, Report, run_began
from midsource.marketing import accounts, failed_tries, statistics
from midsource.marketing.failed_tries import FailedTry, Step
from midsource.model.errors import MidsourceError, RemoteRefused
from midsource.store.database import Connection
from midsource.wire.failures import NotAMid

NAME = "defaultMidSourcingDlvStat"
LABEL = "Mid-sourcing (delivery statistics)"
SCHEDULE = "17 * * * *"
ROLES = ("marketing",)
SLICE_SECONDS = 45.0
LEAST_SECONDS = 3.0
TOLD = 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be set for it. ``accounts``: internal names of the external accounts to read; empty: all active ones."""

    accounts: tuple[str, ...] = ()


def run_once(context: Context, settings: Settings | None = None) -> Report:
    """Do one slice."""
    wanted = (settings or Settings()).accounts
    began_at = run_began(context)
    deadline = context.clock.boot_seconds() + SLICE_SECONDS - LEAST_SECONDS
    with context.database.connection() as conn:
        active = [one.name for one in accounts.list_accounts(conn) if one.active and (not wanted or one.name in wanted)]
        silent = {each.account for each in _failures(conn, began_at, active) if not each.delivery_id}
        due = statistics.due(conn, context.clock.now(), began_at, [name for name in active if name not in silent])
    read = 0
    for delivery_id, account in due:
        if account in silent:
            continue
        if context.clock.boot_seconds() > deadline:
            return Report(rows_read=read, more_after_seconds=0.0)
        context.beat()
        try:
            read += _pull(context, delivery_id, account)
        except Cancelled:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever one delivery's statistics hold, the others go on
            if not _note(context, delivery_id, account, exc):
                silent.add(account)
    with context.database.connection() as conn:
        failures = _failures(conn, began_at, active)
    if failures:
        raise _failed(failures)
    return Report(rows_read=read, rows_written=read)


def _note(context: Context, delivery_id: int, account: str, exc: Exception) -> bool:
    """Leave a delivery, or its whole account (False), to the next run. That a mid knows nothing of it is no failure."""
    is_unknown = isinstance(exc, RemoteRefused) and exc.status == 404 and not isinstance(exc, NotAMid)
    about = delivery_id if is_unknown or not failed_tries.is_of_account(exc) else 0
    with context.database.transaction() as conn:
        noted = failed_tries.note(conn, Step.STATISTICS, account, exc, delivery_id=about, is_over=not is_unknown)
    context.say("warning", f"delivery {delivery_id}: its statistics could not be had of {account}: {noted.cause}")
    return bool(about)


def _failures(conn: Connection, began_at: datetime, active: Sequence[str]) -> list[FailedTry]:
    noted = failed_tries.since(conn, Step.STATISTICS, began_at)
    return [each for each in noted if each.is_over and each.account in active]


def _failed(failures: Sequence[FailedTry]) -> MidsourceError:
    of_deliveries = sum(each.delivery_id > 0 for each in failures)
    counted = ((len(failures) - of_deliveries, "external accounts"), (of_deliveries, "deliveries"))
    named = [
        f"{f'delivery {each.delivery_id} with ' if each.delivery_id else ''}{each.account}: {each.cause}"
        for each in failures[:TOLD]
    ]
    return circuit.common(each.kind for each in failures)(
        f"{' and '.join(f'{n} {what}' for n, what in counted if n)} could not be read: {'; '.join(named)}",
        "see `midsource account test`; the next run reads them again",
    )


def _pull(context: Context, delivery_id: int, account: str) -> int:
    with accounts.open_client(context.database, context.home, account, context.clock) as client:
        told = client.statistics(delivery_id)
    with context.database.transaction() as conn:
        agrees = statistics.keep(conn, delivery_id, told)
        failed_tries.forget(conn, Step.STATISTICS, account, delivery_id)
    if agrees is False:
        context.say("warning", f"delivery {delivery_id}: the mid's statistics are not the log's totals: it is compared")
    return len(told.rows)

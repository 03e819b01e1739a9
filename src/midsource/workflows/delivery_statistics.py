"""Delivery statistics: what became of messages by recipient domain, from each mid, every hour.

*Reads* ``GET deliveries/{id}/statistics`` of deliveries under way and of those that ended in the last seven days. *Writes*
`delivery_stat`, replaced as a whole in one transaction, and `delivery_stat_read`. *Pointer*: none; each answer is all of it.

*Bounds*: a slice is at most 45 s; an answer names the 1 000 largest domains and sums the rest.

*When it fails*: a delivery that cannot be read is named and the others go on; of a mid that does not answer none is tried again in
that slice. Once everything was pulled and nothing moves the sums must equal the log's totals: else the
delivery is compared row by row by `reconcile`.
"""

from __future__ import annotations

from dataclasses import dataclass

from midsource.engine.work import Cancelled, Context, Report
from midsource.marketing import accounts, statistics
from midsource.model.errors import Failed, MidsourceError, RemoteRefused
from midsource.wire.failures import LinkFailure

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
    with context.database.connection() as conn:
        due = [one for one in statistics.due(conn, context.clock.now()) if not wanted or one[1] in wanted]
    deadline = context.clock.boot_seconds() + SLICE_SECONDS - LEAST_SECONDS
    failures: dict[str, str] = {}
    read = 0
    for delivery_id, account in due:
        if account in failures:
            continue
        if context.clock.boot_seconds() > deadline:
            return Report(rows_read=read, more_after_seconds=0.0)
        context.beat()
        try:
            read += _pull(context, delivery_id, account)
        except Cancelled:
            raise
        except RemoteRefused as exc:
            if exc.status != 404:
                failures[account] = exc.cause
            context.say("warning", f"delivery {delivery_id}: {account} has no statistics of it: {exc.cause}")
        except LinkFailure as exc:
            failures[account] = exc.cause
        except MidsourceError as exc:
            context.say("warning", f"delivery {delivery_id}: its statistics could not be kept: {exc.cause}")
            failures.setdefault(account, exc.cause)
    if failures:
        named = "; ".join(f"{account}: {why}" for account, why in list(failures.items())[:TOLD])
        raise Failed(f"{len(failures)} external accounts could not be read: {named}", "see `midsource account test`")
    return Report(rows_read=read, rows_written=read)


def _pull(context: Context, delivery_id: int, account: str) -> int:
    with accounts.open_client(context.database, context.home, account, context.clock) as client:
        told = client.statistics(delivery_id)
    with context.database.transaction() as conn:
        agrees = statistics.keep(conn, delivery_id, told)
    if agrees is False:
        context.say("warning", f"delivery {delivery_id}: the mid's statistics are not the log's totals: it is compared")
    return len(told.rows)

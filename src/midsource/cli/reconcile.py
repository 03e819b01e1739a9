"""`delivery reconcile`: one delivery compared with its mid now, down to single rows, and mended."""

from __future__ import annotations

from typing import Annotated

import typer

from midsource.cli import asking
from midsource.cli.follow import resolve
from midsource.cli.output import err, say, say_json, say_table
from midsource.cli.session import Opened, Session
from midsource.engine.work import Context
from midsource.marketing import accounts, reconcile_reports
from midsource.marketing import reconcile as comparison
from midsource.marketing.reconcile_reports import Report
from midsource.model.errors import Failed
from midsource.net.clock import SystemClock
from midsource.security import audit

SECONDS = 3600.0
"""Longest comparison by hand: ten million rows take some minutes."""


def reconcile(
    ctx: typer.Context,
    number: Annotated[str, typer.Argument(metavar="ID", help="Number of the delivery, or `last`.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what differs; change nothing on either side.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Compare a delivery's log with the mid's ledger and mend what differs. Needs no worker; exit 1 where it could not be compared."""
    session: Session = ctx.obj
    with session.open("marketing") as opened:
        report = _compared(opened, number, dry_run=dry_run)
    if json:
        say_json(reconcile_reports.as_dict(report))
    else:
        _show(report)
    if report.problem:
        raise typer.Exit(Failed.exit_code)


def _compared(opened: Opened, number: str, *, dry_run: bool) -> Report:
    who, clock = asking.visitor(), SystemClock()
    with opened.database.transaction() as conn:
        found = resolve(conn, number)
        if found.targeted is None:
            raise Failed(f"delivery {found.id} has no log yet: nothing can be compared", "prepare and send it first")
        audit.record(conn, who, "delivery.reconcile", found.id, dry_run=dry_run)
        report = reconcile_reports.begin(conn, found.id, found.account, who.name, clock.now(), dry_run=dry_run)
    context = Context(
        database=opened.database,
        clock=clock,
        home=opened.config.home,
        instance=opened.instance.name,
        subject=found.id,
        say=lambda level, line: err.print(f"{level}: {line}", markup=False, style="dim"),
        beat=lambda: None,
        progress=lambda _told: None,
    )
    with accounts.open_client(opened.database, opened.config.home, found.account, clock) as client:
        comparison.compare(context, client, report, clock.boot_seconds() + SECONDS, mend=not dry_run)
    return report


def _show(report: Report) -> None:
    say(report.sentence())
    if report.examples:
        say_table(
            ("message", "what", "here", "by the mid"),
            [(str(one["id"]), one["what"], _words(one["ours"]), _words(one["mid"])) for one in report.examples],
        )


def _words(triple: list[int] | None) -> str:
    return "none" if triple is None else "state {}, reason {}, revision {}".format(*triple)

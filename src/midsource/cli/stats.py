"""`delivery stats`: what became of a delivery's messages by recipient domain, as the mid counted them."""

from __future__ import annotations

from typing import Annotated

import typer

from midsource.cli.follow import resolve
from midsource.cli.output import say, say_json, say_table
from midsource.cli.session import Session
from midsource.marketing import statistics
from midsource.marketing.statistics import DomainFigures
from midsource.model.message import MessageState

COLUMNS = (MessageState.SENT, MessageState.FAILED, MessageState.DEFERRED, MessageState.PENDING)


def stats(
    ctx: typer.Context,
    number: Annotated[str, typer.Argument(metavar="ID", help="Number of the delivery, or `last`.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Show sent, failed, deferred and pace by recipient domain, as of the last run of defaultMidSourcingDlvStat."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.connection() as conn:
        delivery = resolve(conn, number)
        table = statistics.read(conn, delivery.id)
    if json:
        say_json({"id": delivery.id, **statistics.as_dict(table)})
        return
    if table.read_at is None:
        say(f"nothing was read of delivery {delivery.id} yet; `midsource workflow run-now defaultMidSourcingDlvStat`")
        return
    say(f"delivery {delivery.id}, {table.domains} domains, as of {table.read_at:%Y-%m-%d %H:%M:%S} UTC")
    header = ("domain", "messages", *(state.label for state in COLUMNS), "a second", "failed because")
    say_table(header, [_cells(row) for row in table.rows])


def _cells(row: DomainFigures) -> tuple[object, ...]:
    why = ", ".join(f"{n} {label}" for label, n in sorted(row.failed_because.items(), key=lambda one: -one[1]))
    rate = None if row.rate is None else f"{row.rate:.2f}"
    return (row.domain or "(others)", row.messages, *(row.by_state.get(state, 0) for state in COLUMNS), rate, why)

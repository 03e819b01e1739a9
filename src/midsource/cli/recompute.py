"""`delivery recompute`: the counters of a delivery's log, counted anew from its rows."""

from __future__ import annotations

from typing import Annotated

import typer

from midsource.cli import asking
from midsource.cli.follow import resolve
from midsource.cli.output import say, say_json, say_table
from midsource.cli.session import Session
from midsource.marketing import totals
from midsource.model.message import MessageState
from midsource.security import audit


def recompute(
    ctx: typer.Context,
    number: Annotated[str, typer.Argument(metavar="ID", help="Number of the delivery, or `last`.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Count a delivery's log anew and correct its counters; beside them what the mid counted. Needs no running process."""
    session: Session = ctx.obj
    with (
        session.open("marketing") as opened,
        opened.database.transaction(statement_seconds=totals.RECOUNT_SECONDS) as conn,
    ):
        delivery = resolve(conn, number)
        wrong = totals.recount(conn, delivery.id)
        counts = totals.by_state(conn, delivery.id)
        audit.record(conn, asking.visitor(), "delivery.recompute", delivery.id, corrected=wrong)
    figures = delivery.figures
    if json:
        log = {state.label: counts.get(state, 0) for state in MessageState}
        say_json({"id": delivery.id, "corrected": wrong, "log": log, "mid": figures, "mid_as_of": delivery.figures_at})
        return
    say(f"{wrong} counters were wrong and are corrected" if wrong else "every counter was right")
    rows = [
        (state.label, counts.get(state, 0), None if state is MessageState.IGNORED else figures.get(state.label, 0))
        for state in MessageState
        if counts.get(state) or figures.get(state.label)
    ]
    say_table(("messages", "in the log", "by the mid"), rows)

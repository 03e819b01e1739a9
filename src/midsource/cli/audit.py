"""`audit`: who did what, to what, when; the newest first. Needs no running process."""

from __future__ import annotations

from typing import Annotated

import typer

from midsource.cli.group import group
from midsource.cli.output import say, say_json, say_table
from midsource.cli.session import Session
from midsource.security import audit as trail
from midsource.security.audit import MAX_LIMIT, Entry

app = group()


@app.command()
def audit(
    ctx: typer.Context,
    who: Annotated[str, typer.Option(help="An operator, key:ID, cli:USER, home, system.")] = "",
    verb: Annotated[str, typer.Option(help="What was done: delivery.send, or a family: delivery.")] = "",
    subject: Annotated[str, typer.Option(help="To what: a delivery's number, an option's name.")] = "",
    limit: Annotated[int, typer.Option(help="Rows.", min=1, max=MAX_LIMIT)] = 50,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show who did what, the newest first."""
    session: Session = ctx.obj
    entries: list[Entry] = []
    before: int | None = None
    with session.open() as opened, opened.database.connection() as conn:
        while len(entries) < limit:
            found = trail.page(conn, who=who, verb=verb, subject=subject, before=before, limit=limit - len(entries))
            entries += found.entries
            if (before := found.before) is None:
                break
    if json:
        names = ("at", "who", "via", "verb", "subject", "detail")
        say_json({"audit": [{name: getattr(entry, name) for name in names} for entry in entries]})
        return
    say_table(
        ("at", "who", "did", "to", "details"),
        [(e.at, e.who, e.verb, e.subject, ", ".join(f"{k}={v}" for k, v in e.detail.items())) for e in entries],
    )
    if before is not None:
        say("… and more: raise --limit")

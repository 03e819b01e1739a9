"""`segment create|preview|list`: conditions over people, by name."""

from __future__ import annotations

from typing import Annotated

import typer

from midsource.cli import asking
from midsource.cli.group import group
from midsource.cli.output import say, say_json, say_table
from midsource.cli.session import Session
from midsource.marketing import segments
from midsource.security import audit

app = group("Create, preview and list segments.")
Expression = Annotated[str, typer.Argument(help="As in: language = 'fr' and loyalty_points >= 100")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command()
def create(ctx: typer.Context, name: Annotated[str, typer.Argument()], expression: Expression) -> None:
    """Store a condition under a name."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.transaction() as conn:
        segments.create_segment(conn, name, expression)
        audit.record(conn, asking.visitor(), "segment.create", name, expression=expression)
        found = segments.preview(conn, expression)
    say(f"segment {name} chooses {found.count} people now")


@app.command()
def preview(ctx: typer.Context, expression: Expression, json: Json = False) -> None:
    """Say how many people a condition chooses, and show the first."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.connection() as conn:
        found = segments.preview(conn, expression)
    if json:
        say_json({"count": found.count, "examples": found.examples})
        return
    say(f"{found.count} people")
    say_table(("id", "email", "first name", "last name"), [(str(row[0]), *row[1:]) for row in found.examples])


@app.command("list")
def listing(ctx: typer.Context, json: Json = False) -> None:
    """List the stored segments."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.connection() as conn:
        found = segments.all_segments(conn)
    if json:
        say_json({"segments": [{"name": s.name, "expression": s.expression} for s in found]})
        return
    say_table(("name", "expression", "created"), [(s.name, s.expression, s.created_at) for s in found])

"""`option list|get|set`: options and pointers of an instance of either role, with value, default, unit and meaning."""

from __future__ import annotations

from typing import Annotated

import typer

from midsource.cli import asking
from midsource.cli.group import group
from midsource.cli.output import say, say_json, say_table
from midsource.cli.session import Session
from midsource.net.clock import SystemClock
from midsource.security import audit
from midsource.web.option_tables import table_of

app = group("Options and pointers: list, get, set.")
Name = Annotated[str, typer.Argument(help="The option's name.")]


@app.command("list")
def listing(ctx: typer.Context, json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List every option, pointers included."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.connection() as conn:
        views = table_of(opened.instance.role).list_options(conn)
    if json:
        names = ("name", "value", "default", "unit", "description")
        say_json({"options": [{name: getattr(view, name) for name in names} for view in views]})
        return
    say_table(
        ("name", "value", "default", "unit", "meaning"),
        [(view.name, view.value, view.default, view.unit, view.description) for view in views],
    )


@app.command()
def get(ctx: typer.Context, name: Name) -> None:
    """Print the value of one option, and nothing else."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.connection() as conn:
        say(table_of(opened.instance.role).get_value(conn, name))


@app.command("set")
def set_(
    ctx: typer.Context,
    name: Name,
    value: Annotated[str, typer.Argument(help="The new value, with its unit: 180d, 3600s, 2026-03-01T08:00:00Z.")],
    yes: Annotated[bool, typer.Option("--yes", help="Confirm that results are left out.")] = False,
) -> None:
    """Set an option. A pointer moved forward says what it skips, and asks for --yes."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.transaction() as conn:
        options = table_of(opened.instance.role)
        who, before = asking.visitor(), options.get_value(conn, name)
        said = options.set_value(conn, name, value, by=who.name, now=SystemClock().now(), yes=yes)
        audit.record(conn, who, "option.set", name, old=before, new=options.get_value(conn, name))
    say(said)

"""`recipients import|list|show|erase|field add`: the people of a marketing instance."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from midsource.cli import asking
from midsource.cli.group import group
from midsource.cli.output import err, say, say_json, say_table
from midsource.cli.session import Opened, Session
from midsource.marketing import fields, importing, recipients
from midsource.marketing.importing import ImportResult
from midsource.model.errors import UserError
from midsource.net.clock import SystemClock
from midsource.security import audit

app = group("Import, list, show and erase people; add own fields.")
field_app = group("Own fields of people.")
app.add_typer(field_app, name="field")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command("import")
def import_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV with a header; `email` is the one column it must have.")],
    list_name: Annotated[str, typer.Option("--list", help="Also put everybody on this list.")] = "",
    create_fields: Annotated[bool, typer.Option("--create-fields", help="Unknown columns become own fields.")] = False,
    ignore_unknown: Annotated[bool, typer.Option("--ignore-unknown", help="Unknown columns are left out.")] = False,
    json: Json = False,
) -> None:
    """Import people from a CSV file: known ones are updated, bad lines go to a rejects file with line and reason."""
    session: Session = ctx.obj
    with session.open("marketing") as opened:
        result = import_with_progress(
            opened, file, list_name=list_name, create_fields=create_fields, ignore_unknown=ignore_unknown
        )
    if json:
        say_json(
            {
                "stored": result.stored,
                "updated": result.updated,
                "rejected": result.rejected,
                "rejects_file": str(result.rejects_file) if result.rejects_file else None,
            }
        )
        return
    say(f"{result.stored} stored, {result.updated} updated, {result.rejected} rejected ({result.encoding})")
    if result.created_fields:
        say("own fields made: " + ", ".join(f"{name} ({kind})" for name, kind in result.created_fields.items()))
    if result.rejects_file:
        say(f"rejected lines, with reasons: {result.rejects_file}")


def import_with_progress(
    opened: Opened, file: Path, *, list_name: str = "", create_fields: bool = False, ignore_unknown: bool = False
) -> ImportResult:
    """Import a file while showing how far it is, on standard error."""
    columns = (
        TextColumn("import"), BarColumn(), TextColumn("{task.fields[rows]} people"), TransferSpeedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("import", total=None, rows=0)
        return importing.import_recipients(
            opened.database,
            file,
            home=opened.config.home,
            clock=SystemClock(),
            list_name=list_name,
            create_fields=create_fields,
            ignore_unknown=ignore_unknown,
            progress=lambda read, total, rows: bar.update(task, completed=read, total=total, rows=rows),
        )


@app.command("list")
def listing(
    ctx: typer.Context,
    list_name: Annotated[str, typer.Option("--list", help="Only people on this list.")] = "",
    after: Annotated[int, typer.Option(help="Go on after this id.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at once.")] = 50,
    json: Json = False,
) -> None:
    """List people, a page at a time."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.connection() as conn:
        page = recipients.page(conn, list_name=list_name, after=after, limit=limit)
    if json:
        say_json({"total": page.total, "recipients": [recipients.as_dict(person) for person in page.recipients]})
        return
    say_table(
        ("id", "email", "first name", "last name", "language", "opted out"),
        [(str(p.id), p.email, p.first_name, p.last_name, p.language, p.opted_out) for p in page.recipients],
    )
    say(f"{len(page.recipients)} of {page.total}")


@app.command()
def show(ctx: typer.Context, email: Annotated[str, typer.Argument()], json: Json = False) -> None:
    """Show everybody who has this address, with own fields, lists and last deliveries."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.connection() as conn:
        people = recipients.by_email(conn, email)
    if json:
        say_json({"recipients": [recipients.as_dict(person) for person in people]})
        return
    for person in people:
        say_table(("field", "value"), [(key, str(value)) for key, value in recipients.as_dict(person).items()])
        say()


@app.command()
def erase(
    ctx: typer.Context,
    email: Annotated[str, typer.Argument()],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase everybody who has this address: the person goes, the delivery log keeps its row without the address."""
    session: Session = ctx.obj
    if not yes and not sys.stdin.isatty():
        raise UserError("erasing cannot be undone, and nobody is here to be asked", "repeat with --yes")
    if not yes:
        typer.confirm(f"Erase {email} and their address from every delivery log?", abort=True)
    with session.open("marketing") as opened, opened.database.transaction() as conn:
        erased = recipients.erase(conn, email)
        # Never the address: the audit would keep what was erased.
        audit.record(conn, asking.visitor(), "recipient.erase", people=erased.people, log_rows=erased.log_rows)
    say(f"{erased.people} people erased; {erased.log_rows} delivery-log rows made anonymous")


@field_app.command("add")
def field_add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="a to z, 0 to 9 and _")],
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="text, integer, number, boolean or date")],
) -> None:
    """Add an own field."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.transaction() as conn:
        made = fields.add_field(conn, name, kind)
        audit.record(conn, asking.visitor(), "field.add", name, type=kind)
    say(f"own field {name} ({kind}) {'added' if made else 'was there already'}")

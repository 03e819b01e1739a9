"""`template list|show|save|check|delete`: what deliveries start from."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from midsource.cli import asking
from midsource.cli.group import group
from midsource.cli.output import say, say_json, say_table
from midsource.cli.session import Session
from midsource.mail.checks import Severity
from midsource.marketing import brands, templates
from midsource.marketing.delivery_file import read_text
from midsource.model.errors import Failed, NotFound
from midsource.security import audit

app = group("Delivery templates: list, show, save, check, delete.")
Name = Annotated[str, typer.Argument(help="The template's name.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command("list")
def listing(ctx: typer.Context, json: Json = False) -> None:
    """List the templates."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.connection() as conn:
        found = templates.all_templates(conn)
    if json:
        say_json({"templates": [{"name": line.name, "subject": line.subject} for line in found]})
        return
    say_table(("name", "subject", "changed"), [(line.name, line.subject, line.modified_at) for line in found])


@app.command()
def show(ctx: typer.Context, name: Name, json: Json = False) -> None:
    """Show a template with its content."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.connection() as conn:
        found = templates.get_template(conn, name)
    if json:
        say_json(asdict(found))
        return
    say_table(
        ("field", "value"), [(key, str(value)) for key, value in asdict(found).items() if key not in ("html", "text")]
    )
    for part in (found.html, found.text):
        if part:
            say(part)


@app.command()
def save(
    ctx: typer.Context,
    name: Name,
    subject: Annotated[str | None, typer.Option(help="Subject; default: as it is.")] = None,
    html: Annotated[Path | None, typer.Option(help="File with the HTML body; default: as it is.")] = None,
    text: Annotated[Path | None, typer.Option(help="File with the text body; default: as it is.")] = None,
) -> None:
    """Make a template, or change what is given of one; deliveries made before keep what they took."""
    session: Session = ctx.obj
    contents = {part: read_text(path) for part, path in (("html", html), ("text", text)) if path is not None}
    with session.open("marketing") as opened, opened.database.transaction() as conn:
        try:
            before = templates.get_template(conn, name)
        except NotFound:
            before = replace(templates.EMPTY, name=name)
        changed = replace(
            before,
            subject=before.subject if subject is None else subject,
            html=contents.get("html", before.html),
            text=contents.get("text", before.text),
        )
        templates.save_template(conn, changed)
        audit.record(conn, asking.visitor(), "template.save", name)
    say(f"template {name} is stored; `midsource template check {name}` says what is wrong with it")


@app.command()
def check(
    ctx: typer.Context,
    name: Name,
    brand: Annotated[str, typer.Option(help="In whose name it is sent.")] = brands.DEFAULT,
) -> None:
    """Say what the preparation would find in a template; exit 1 where it would stop."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.connection() as conn:
        found = templates.findings_of(conn, templates.get_template(conn, name), brands.get_brand(conn, brand))
    for finding in found:
        say(f"{finding.severity}: {finding.sentence}")
    if any(finding.severity is Severity.ERROR for finding in found):
        raise Failed(f"the template {name!r} cannot be sent as it is", "correct it and check again")
    if not found:
        say("the checks find nothing")


@app.command()
def delete(ctx: typer.Context, name: Name) -> None:
    """Delete a template that no delivery was made from."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.transaction() as conn:
        templates.delete_template(conn, name)
        audit.record(conn, asking.visitor(), "template.delete", name)
    say(f"template {name} is deleted")

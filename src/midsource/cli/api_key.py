"""`api-key add|list|revoke`: keys with which programs use the API. Needs no running process."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from midsource.cli import asking
from midsource.cli.group import group
from midsource.cli.output import say, say_json, say_table
from midsource.cli.session import Session
from midsource.model.errors import UserError
from midsource.net.clock import SystemClock
from midsource.security import api_keys
from midsource.security.roles import Permission

app = group("Keys of programs that use the API: add, list, revoke.")
MAX_DAYS = 3_650


@app.command()
def add(
    ctx: typer.Context,
    label: Annotated[str, typer.Argument(help="Who or what uses it.")],
    scope: Annotated[list[str], typer.Option(help=f"May be given several times: {', '.join(Permission)}.")],
    days: Annotated[int, typer.Option(help="Days until it ends; 0: never.", min=0, max=MAX_DAYS)] = 0,
) -> None:
    """Make a key and print it, this once."""
    session: Session = ctx.obj
    for word in scope:
        if word not in list(Permission):
            raise UserError(f"{word!r} is no scope", f"choose among {', '.join(Permission)}")
    scopes, now = [permission for permission in Permission if permission in scope], SystemClock().now()
    with session.open() as opened, opened.database.transaction() as conn:
        made = api_keys.issue(conn, asking.visitor(), label, scopes, now, now + timedelta(days=days) if days else None)
    say(f"key of {label} for {opened.instance.name} ({', '.join(scopes)}), shown this once:")
    say(made)


@app.command("list")
def listing(
    ctx: typer.Context,
    revoked: Annotated[bool, typer.Option("--all", help="Revoked keys too.")] = False,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List the keys, without their secrets."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.connection() as conn:
        found = api_keys.list_keys(conn, revoked=revoked)
    if json:
        names = ("key_id", "label", "scopes", "created_at", "created_by", "used_at", "expires_at", "revoked_at")
        say_json({"keys": [{name: getattr(key, name) for name in names} for key in found]})
        return
    say_table(
        ("key id", "label", "scopes", "used", "ends", "revoked", "created", "by"),
        [
            (k.key_id, k.label, ", ".join(k.scopes), k.used_at, k.expires_at, k.revoked_at, k.created_at, k.created_by)
            for k in found
        ],
    )


@app.command()
def revoke(
    ctx: typer.Context, key_id: Annotated[str, typer.Argument(help="The part of the key before the dot.")]
) -> None:
    """Refuse a key from now on, for good."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.transaction() as conn:
        key = api_keys.revoke(conn, asking.visitor(), key_id.partition(".")[0], SystemClock().now())
    say(f"key {key.key_id} of {key.label} is refused within {round(api_keys.CACHE_SECONDS)} s")

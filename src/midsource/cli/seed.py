"""`seed add|list|remove`: seed addresses, which proofs are sent to."""

from __future__ import annotations

from typing import Annotated

import typer

from midsource.cli import asking
from midsource.cli.group import group
from midsource.cli.output import say, say_json, say_table
from midsource.cli.session import Session
from midsource.marketing import seeds
from midsource.security import audit

app = group("Seed addresses, which proofs are sent to: add, list, remove.")
Address = Annotated[str, typer.Argument(help="name@domain")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command()
def add(
    ctx: typer.Context, address: Address, label: Annotated[str, typer.Option(help="Whose address it is.")] = ""
) -> None:
    """Add a seed address, or give it another label."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.transaction() as conn:
        kept = seeds.add_seed(conn, address, label)
        audit.record(conn, asking.visitor(), "seed.add", label=label)
    say(f"proofs may be sent to {kept}")


@app.command("list")
def listing(ctx: typer.Context, json: Json = False) -> None:
    """List the seed addresses."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.connection() as conn:
        found = seeds.all_seeds(conn)
    if json:
        say_json({"seeds": [{"address": seed.address, "label": seed.label} for seed in found]})
        return
    say_table(("address", "label", "created"), [(seed.address, seed.label, seed.created_at) for seed in found])


@app.command()
def remove(ctx: typer.Context, address: Address) -> None:
    """Remove a seed address; proofs sent to it stay what they are."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.transaction() as conn:
        seeds.remove_seed(conn, address.strip().lower())
        audit.record(conn, asking.visitor(), "seed.remove")
    say(f"no proof is sent to {address.strip().lower()} any more")

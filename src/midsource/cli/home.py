"""`init`, `migrate`, `config show|check`: the home folder and what lies in it."""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from typing import Annotated

import typer

from midsource.cli.group import group
from midsource.cli.output import say, say_json, say_table
from midsource.cli.session import Session, serving
from midsource.cli.setup import DEFAULT_PORT, make_home, set_up
from midsource.config import Config
from midsource.store import migrate as migration
from midsource.store.database import Database

_PASSWORD_PARAMETER = re.compile(r"([?&](?:ssl)?password=)[^&]*")

app = group()
config_app = group("Show the configuration with its origin, or check it.")
app.add_typer(config_app, name="config")


@app.command()
def init(
    ctx: typer.Context,
    port: Annotated[int, typer.Option(help="First of four ports in a row, on loopback.")] = DEFAULT_PORT,
) -> None:
    """Make a home folder: configuration, keys, databases, a marketing instance and a mid, and the account between them.

    Repeating it completes what is missing and changes nothing else.
    """
    session: Session = ctx.obj
    made = make_home(session.home, port)
    say(f"{'Made' if made else 'Found'} {session.home / 'midsource.toml'}")
    for line in set_up(session.config()):
        say(line)
    say("Next: `midsource up`, or `midsource demo` for a first delivery into the sandbox.")


@app.command()
def migrate(ctx: typer.Context) -> None:
    """Bring every instance's database to the schema of this version."""
    session: Session = ctx.obj
    config = session.config()
    with serving(config) as urls:
        for instance in config.instances:
            with Database(instance.name, urls(instance), application="migrate") as database:
                migration.upgrade(database, instance.role)
            say(f"{instance.name}: schema is current")


@config_app.command()
def show(
    ctx: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Also say where each value comes from.")] = False,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show every value in force."""
    session: Session = ctx.obj
    config = session.config()
    values = effective(config)
    if json:
        say_json({"config": values, "origin": dict(config.origin)})
        return
    columns = ("key", "value", "origin") if origin else ("key", "value")
    say_table(columns, [(key, str(value), config.origin.get(key, ""))[: len(columns)] for key, value in values.items()])


@config_app.command()
def check(ctx: typer.Context) -> None:
    """Check the configuration; all problems are reported at once."""
    session: Session = ctx.obj
    config = session.config()
    say(f"{session.home / 'midsource.toml'} is fine: {len(config.instances)} instances")


def effective(config: Config) -> dict[str, object]:
    """Return every key of the configuration with its value; passwords in URLs are masked."""
    values: dict[str, object] = {}
    for section in ("postgres", "sandbox", "egress"):
        values |= {f"{section}.{key}": value for key, value in asdict(getattr(config, section)).items()}
    for instance in config.instances:
        for field in fields(instance):
            if field.name != "name":
                values[f"instances.{instance.name}.{field.name}"] = getattr(instance, field.name)
        key = f"instances.{instance.name}.database_url"
        values[key] = mask(str(values[key]))
    return values


def mask(url: str) -> str:
    """Return a URL with its passwords replaced: the one before the host and those among the parameters."""
    url = _PASSWORD_PARAMETER.sub(r"\1***", url)
    scheme, separator, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    if not at or ":" not in credentials:
        return url
    return f"{scheme}{separator}{credentials.partition(':')[0]}:***@{place}"

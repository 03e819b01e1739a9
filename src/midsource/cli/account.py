"""`account add|test|list|rename|release`: on a marketing instance its external accounts, on a mid the instances that may submit."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from midsource.cli import asking
from midsource.cli.group import group
from midsource.cli.output import say, say_json, say_table
from midsource.cli.session import Opened, Session
from midsource.marketing import accounts as external
from midsource.marketing import link_test
from midsource.mid import accounts as submitting
from midsource.mid import hold
from midsource.model.errors import Failed, UserError
from midsource.net.clock import SystemClock
from midsource.security import audit

app = group("External accounts: add, test, list, rename.")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command()
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Internal name; never changes (F11).")] = external.DEFAULT_NAME,
    url: Annotated[str, typer.Option(help="Address of the mid: https://mid.example.")] = "",
    key: Annotated[str, typer.Option(help="The key that the mid printed.")] = "",
    label: Annotated[str, typer.Option(help="What lists show.")] = "",
) -> None:
    """Add an account. On a marketing instance: give --url and --key; on a mid (--role mid): the key is printed once."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.transaction() as conn:
        if opened.instance.role == "mid":
            _, made = submitting.create(conn, name)
            audit.record(conn, asking.visitor(), "account.add", name)
            say(f"account {name} may submit to {opened.instance.name}; its key, shown this once:")
            say(made)
            return
        if not url or not key:
            raise UserError(
                "an external account needs --url and --key",
                "`midsource account add NAME --role mid` on the mid prints a key",
            )
        external.add(conn, session.home, url=url, key=key, name=name, label=label or name, now=SystemClock().now())
        audit.record(conn, asking.visitor(), "account.add", name, url=url)
    say(f"external account {name} is stored; try it with `midsource account test {name}`")


@app.command()
def release(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The account's name on the mid.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Send again although marketing did not tell what it knows.")
    ] = False,
) -> None:
    """Let a mid that was restored send an account's messages again, without waiting for its marketing instance."""
    session: Session = ctx.obj
    if not yes:
        raise UserError(
            "what was sent after the backup is not known here: messages that wait become uncertain, or are sent twice where the "
            "delivery's policy is resend",
            "let the workflow `reconcile` of the marketing instance tell it, or repeat with --yes",
        )
    with session.open("mid") as opened:
        with opened.database.transaction() as conn:
            account_id = hold.account_named(conn, name)
            audit.record(conn, asking.visitor(), "account.release", name)
        named, released = 0, False
        while not released:
            answer = hold.release(opened.database, account_id, SystemClock().now(), untold=True)
            named, released = named + answer.uncertain, answer.released
            if not released:
                say(f"{named} messages are uncertain, going on")
    say(
        f"account {name} is dispatched again; {named} messages may have been sent before: they are uncertain, "
        "or due again where their delivery's policy is resend"
    )


@app.command("test")
def try_link(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Internal name of the external account.")] = external.DEFAULT_NAME,
    json: Json = False,
) -> None:
    """Call the mid and say everything that is wrong with the link."""
    session: Session = ctx.obj
    with session.open("marketing") as opened:
        result = link_test.run(opened.database, session.home, name, SystemClock())
    hello = result.hello
    if json:
        version = hello.version if hello else None
        steps = [asdict(step) for step in result.steps]
        found = {"ok": not result.problems, "problems": result.problems, "version": version}
        say_json({**found, "skew": result.skew_seconds, "steps": steps})
    else:
        rows = [
            (step.name, step.outcome.value, _milliseconds(step), step.problem or step.told) for step in result.steps
        ]
        say_table(("step", "outcome", "ms", "found"), rows)
    if hello and not json:
        say(f"{name}: mid {hello.instance}, version {hello.version}, knows us as {hello.account}")
        say(
            f"transport {hello.transport}, clock {result.skew_seconds:+.1f} s, parts of at most {hello.limits.part_rows} rows"
        )
    if result.problems:
        raise Failed("; ".join(problem.rstrip(".") for problem in result.problems))


@app.command("list")
def listing(ctx: typer.Context, json: Json = False) -> None:
    """List the accounts of this instance."""
    session: Session = ctx.obj
    with session.open() as opened:
        columns, rows = _rows(opened)
    if json:
        say_json({"accounts": [dict(zip(columns, row, strict=True)) for row in rows]})
    else:
        say_table(columns, rows)


@app.command()
def rename(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Internal name; stays.")],
    label: Annotated[str, typer.Argument(help="The new label.")],
) -> None:
    """Change the label of an external account; the internal name never changes, because the pointers are named after it."""
    session: Session = ctx.obj
    with session.open("marketing") as opened, opened.database.transaction() as conn:
        external.rename(conn, name, label)
        audit.record(conn, asking.visitor(), "account.rename", name, new=label)
    say(f"{name} is now labelled {label!r}")


def _milliseconds(step: link_test.Step) -> str:
    return "" if step.outcome is link_test.Outcome.UNTRIED else f"{step.seconds * 1000:.0f}"


def _rows(opened: Opened) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    with opened.database.connection() as conn:
        if opened.instance.role == "mid":
            found = conn.execute("select name, active, created_at from account order by name limit 500").fetchall()
            return ("name", "active", "created"), list(found)
        accounts = external.list_accounts(conn)
    columns = ("name", "label", "url", "active", "last answer", "last problem")
    return columns, [(a.name, a.label, a.url, a.active, a.last_hello_at, a.last_problem) for a in accounts]

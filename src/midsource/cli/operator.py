"""`operator add|password|roles|list|disable|enable`: who may log in to the console. Needs no running process."""

from __future__ import annotations

from typing import Annotated

import typer

from midsource.cli import asking
from midsource.cli.group import group
from midsource.cli.output import say, say_json, say_table
from midsource.cli.session import Session
from midsource.model.errors import UserError
from midsource.net.clock import SystemClock
from midsource.security import operators
from midsource.security.passwords import Hashing, checked
from midsource.security.roles import Role

app = group("Operators, who log in to the console: add, password, roles, list, disable, enable.")
Name = Annotated[str, typer.Argument(help="The operator's name: small letters, digits and . _ @ -")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


@app.command()
def add(
    ctx: typer.Context,
    name: Name,
    role: Annotated[list[str], typer.Option(help=f"A role, may be given several times: {', '.join(Role)}.")],
    password_stdin: FromStdin = False,
) -> None:
    """Make an operator; asks for the password."""
    session: Session = ctx.obj
    operators.check_name(name)
    roles = read_roles(role)
    with session.open() as opened:
        hashed = Hashing().hash(checked(asking.password(from_stdin=password_stdin), name))
        with opened.database.transaction() as conn:
            operators.add(conn, asking.visitor(), name, roles, hashed)
    say(f"operator {name} may log in to {opened.instance.name} as {', '.join(roles)}")


@app.command()
def password(ctx: typer.Context, name: Name, password_stdin: FromStdin = False) -> None:
    """Set another password; ends every session of the operator."""
    session: Session = ctx.obj
    with session.open() as opened:
        with opened.database.connection() as conn:
            operators.find(conn, name)
        hashed = Hashing().hash(checked(asking.password(from_stdin=password_stdin), name))
        with opened.database.transaction() as conn:
            ended = operators.set_password(conn, asking.visitor(), name, hashed)
    say(f"operator {name} has a new password; {ended} sessions ended")


@app.command()
def roles(
    ctx: typer.Context,
    name: Name,
    role: Annotated[list[str], typer.Argument(help=f"All the roles they have from now on: {', '.join(Role)}.")],
) -> None:
    """Change what an operator may do; ends every session of theirs."""
    session: Session = ctx.obj
    chosen = read_roles(role)
    with session.open() as opened, opened.database.transaction() as conn:
        before = operators.set_roles(conn, asking.visitor(), name, chosen)
    say(f"operator {name} is now {', '.join(chosen)} (was {', '.join(before.roles)})")


@app.command("list")
def listing(ctx: typer.Context, json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List the operators."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.connection() as conn:
        found = operators.list_operators(conn)
    if json:
        names = ("name", "roles", "language", "disabled_at", "created_at", "created_by")
        say_json({"operators": [{name: getattr(operator, name) for name in names} for operator in found]})
        return
    say_table(
        ("name", "roles", "disabled", "created", "by"),
        [(o.name, ", ".join(o.roles), o.disabled_at, o.created_at, o.created_by) for o in found],
    )


@app.command()
def disable(ctx: typer.Context, name: Name) -> None:
    """Shut an operator out at once; the name stays in the audit."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.transaction() as conn:
        operators.disable(conn, asking.visitor(), name, SystemClock().now())
    say(f"operator {name} is disabled and logged out everywhere")


@app.command()
def enable(ctx: typer.Context, name: Name) -> None:
    """Let a disabled operator in again, with the password they had; forgives failed log-ins."""
    session: Session = ctx.obj
    with session.open() as opened, opened.database.transaction() as conn:
        operators.enable(conn, asking.visitor(), name)
    say(f"operator {name} may log in again")


def read_roles(given: list[str]) -> list[Role]:
    """Return the roles of these words. Raises UserError naming the first that is none."""
    for word in given:
        if word not in list(Role):
            raise UserError(f"{word!r} is no role", f"choose among {', '.join(Role)}")
    return [role for role in Role if role in given]

"""The command line: finds the command group, runs it, and turns every expected failure into one sentence and an exit code.

``--home``, ``--instance``, ``--role`` and ``--debug`` may stand anywhere before ``--``. Groups are imported when named, so a
command starts fast. Exit codes: cli/ending.py.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from midsource.cli.ending import exit_code_of
from midsource.cli.output import err, say_error
from midsource.cli.session import Session
from midsource.config import default_home, forget_libpq_variables
from midsource.model.errors import UserError

GROUPS = {
    "demo": ("demo", "Both halves, a sandbox, sample people, one real delivery; then the console"),
    "init": ("home", "Make a home folder: configuration, keys, databases, both instances"),
    "migrate": ("home", "Bring the databases to the schema of this version"),
    "config": ("home", "Show the configuration with its origin, or check it"),
    "up": ("running", "Run the processes of this home"),
    "down": ("running", "Stop them"),
    "ps": ("running", "Show them"),
    "start": ("running", "Start a process that was stopped: web@marketing"),
    "stop": ("running", "Stop one process; it stays stopped"),
    "restart": ("running", "Restart one process"),
    "status": ("running", "Say whether everything runs; exit 3 unless it does"),
    "logs": ("running", "Show the log of a process"),
    "recipients": ("recipients", "Import, list, show and erase people; add own fields"),
    "segment": ("segment", "Create, preview and list segments"),
    "template": ("template", "Delivery templates: list, show, save, check, delete"),
    "seed": ("seed", "Seed addresses, which proofs are sent to: add, list, remove"),
    "delivery": ("delivery", "Create, prepare, send, watch and explain deliveries"),
    "account": ("account", "External accounts: add, test, list, rename"),
    "option": ("option", "Options and pointers: list, get, set"),
    "workflow": ("workflow", "Technical workflows: list, show, run now, restart, journal"),
    "doctor": ("doctor", "Look at everything, say what is wrong, why, and what to do; mend what is safe"),
    "cleanup": ("cleanup", "Remove what was kept for its time: a run at once, or a dry run"),
    "maintenance": ("maintenance", "Upkeep of the database: status, vacuum, reindex, actions"),
    "supervisor": ("supervisor", "Who is told of findings: add, list, test, mute, remove"),
    "bench": ("bench", "Measure what this machine does, beside limits and peers of the same run"),
    "lab": ("lab", "Years of logs and minutes of faults, for drills and proofs"),
    "operator": ("operator", "Who may log in to the console: add, password, roles, list, disable"),
    "api-key": ("api_key", "Keys of programs that use the API: add, list, revoke"),
    "audit": ("audit", "Show who did what, to what, when"),
}
VALUED = ("--home", "--instance", "--role")


class Groups(typer.core.TyperGroup):
    """Imports the module of a command when it is asked for."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002 - typer's signature
        """Return the commands in the order an operator meets them."""
        return list(GROUPS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # noqa: ARG002
        """Import the group's module and return the command of this name."""
        if cmd_name not in GROUPS:
            return None
        module = importlib.import_module(f"midsource.cli.{GROUPS[cmd_name][0]}")
        command: Any = typer.main.get_command(module.app)
        return command.commands[cmd_name] if cmd_name in getattr(command, "commands", {}) else command

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, GROUPS[name][1]) for name in self.list_commands(ctx)])


app = typer.Typer(cls=Groups, add_completion=False, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def midsource(
    ctx: typer.Context,
    home: str = typer.Option("", help="Home folder (or MIDSOURCE_HOME; default ./.midsource)."),
    instance: str = typer.Option("", help="Instance to act on, by name."),
    role: str = typer.Option("", help="Instance to act on, by role: marketing (default) or mid."),
    debug: bool = typer.Option(False, help="Show the traceback of a failure."),
) -> None:
    """Self-hosted bulk email in two halves, with every recipient accounted for."""
    if role not in ("", "marketing", "mid"):
        raise UserError(f"--role {role!r} is no role", "use marketing or mid")
    ctx.obj = Session(home=Path(home).absolute() if home else default_home(), name=instance, role=role, debug=debug)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    forget_libpq_variables()
    logging.getLogger().addHandler(logging.NullHandler())  # a library's warnings are no sentences; processes log them
    given = list(sys.argv[1:] if arguments is None else arguments)
    code = run(global_first(given))
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # who read us has enough; Python would say so once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code."""
    return exit_code_of(lambda: _run(arguments), debug="--debug" in arguments)


def _run(arguments: Sequence[str]) -> int:
    """Run one command; say what was wrong with its words."""
    try:
        result = app(args=list(arguments), prog_name="midsource", standalone_mode=False)
    except typer.TyperException as exc:
        wrong = _usage(exc)
        if type(exc).__name__ == "NoArgsIsHelpError":  # a group named without a command: its help is the answer
            err.print(getattr(exc, "format_message", str)(), markup=False)
        else:
            say_error(f"{wrong}: see `{' '.join(['midsource', *_command(arguments), '--help'])}`.", "MS-100")
        return 2
    except typer.Exit as exc:
        return exc.exit_code
    except typer.Abort as exc:
        raise KeyboardInterrupt from exc
    return result if isinstance(result, int) else 0


def global_first(arguments: Sequence[str]) -> list[str]:
    """Move the global options before the command, wherever they stand before ``--``."""
    first: list[str] = []
    rest: list[str] = []
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        if word == "--":
            rest += ["--", *queue]
            break
        option, equals, value = word.partition("=")
        if word == "--debug":
            first.append(word)
        elif word in VALUED and queue and not _is_of_operator(word, queue[0], arguments):
            first += [word, queue.pop(0)]
        elif equals and option in VALUED and not _is_of_operator(option, value, arguments):
            first.append(word)
        else:
            rest.append(word)
    return first + rest


def _is_of_operator(option: str, value: str, arguments: Sequence[str]) -> bool:
    """Tell whether ``--role admin`` says what an operator may do, and not which instance a command acts on."""
    return option == "--role" and value not in ("marketing", "mid") and "operator" in arguments


def _usage(exc: typer.TyperException) -> str:
    """Return what was wrong with the words of a command, as one clause."""
    format_message = getattr(exc, "format_message", None)
    return str(format_message() if format_message else exc).strip().rstrip(".").replace("\n", " ")


def _command(arguments: Sequence[str]) -> list[str]:
    """Return the command that the words name, for pointing at its help: one word, and a second where it is a group."""
    words = [word for word in arguments if word in GROUPS]
    return words[:1]

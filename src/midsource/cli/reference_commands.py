"""The reference page of the commands: every one that an operator may call, with its arguments and options."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import typer

from midsource.cli import main as command_line
from midsource.cli.reference_page import page, table

EXIT_CODES = (
    "`midsource COMMAND --help` says the same. Exit codes: 0 fine, 1 the thing failed, 2 wrong use, 3 something is "
    "unhealthy, 130 interrupted.\n"
)


def cli_page() -> str:
    """Return every command with its arguments and options."""
    top = typer.main.get_command(command_line.app)
    parts = [
        "# Commands\n",
        EXIT_CODES,
        "## Options of every command\n",
        "They may stand anywhere before `--`.\n",
        _parameters(top.params),
    ]
    for words, command in commands():
        if getattr(command, "commands", None) is None:
            parts += [f"## midsource {words}\n", _command(words, command)]
    return page(parts)


def commands() -> Iterator[tuple[str, Any]]:
    """Yield (words, command) for every group and command an operator may call, in the order of the help."""
    for name, (module, _) in command_line.GROUPS.items():
        found: Any = typer.main.get_command(importlib.import_module(f"midsource.cli.{module}").app)
        yield from _below(name, getattr(found, "commands", {}).get(name, found))


def _below(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield words, command
    for name, child in (getattr(command, "commands", None) or {}).items():
        yield from _below(f"{words} {name}", child)


def _command(words: str, command: Any) -> str:
    arguments = [_placeholder(p) for p in command.params if p.param_type_name == "argument"]
    has_options = any(p.param_type_name == "option" for p in command.params)
    usage = " ".join(["midsource", words, *(["[OPTIONS]"] if has_options else []), *arguments])
    help_text = " ".join((command.help or "").split("\f", maxsplit=1)[0].split())
    return "\n".join([help_text, "", f"    {usage}", "", _parameters(command.params)])


def _parameters(params: list[Any]) -> str:
    rows = [(f"`{_spelling(p)}`", _meaning(p)) for p in params if not getattr(p, "hidden", False) and p.name != "help"]
    return table(("argument or option", "meaning"), rows) if rows else ""


def _spelling(param: Any) -> str:
    if param.param_type_name == "argument":
        return _placeholder(param)
    names = ", ".join([*param.opts, *param.secondary_opts])
    return names if param.is_flag else f"{names} {param.metavar or param.name.upper()}"


def _placeholder(param: Any) -> str:
    name = param.metavar or param.name.upper()
    name = f"{name}…" if param.nargs != 1 else name
    return name if param.required else f"[{name}]"


def _meaning(param: Any) -> str:
    words = [" ".join((param.help or "").split())]
    least, most = getattr(param, "min", None), getattr(param, "max", None)
    if least is not None and most is not None:
        words.append(f"From {least} to {most}.")
    elif least is not None:
        words.append(f"At least {least}.")
    if param.required:
        words.append("Required.")
    elif param.default not in (None, "", False, 0):
        words.append(f"Default: {param.default}.")
    return " ".join(word for word in words if word)

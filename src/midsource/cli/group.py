"""The one way a command group is made."""

from __future__ import annotations

import typer


def group(text: str = "") -> typer.Typer:
    """Return an empty group: plain help on 80 columns, no shell completion installed behind one's back."""
    return typer.Typer(help=text or None, no_args_is_help=True, add_completion=False, rich_markup_mode=None)

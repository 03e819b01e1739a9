"""How commands speak: sentences and tables for people on standard output, errors on standard error, JSON as the last line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 240
"""Columns when nobody looks: a table read by a program is not folded."""

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
if not out.is_terminal:
    out.width = PIPE_WIDTH


def say(text: str = "") -> None:
    """Print one line for people, as it is."""
    out.print(text, markup=False)


def say_error(sentence: str, code: str) -> None:
    """Print a failure on one line: the sentence, its code, and the page that says more."""
    err.print(
        f"midsource: {sentence} [{code}: {page_of(code)}]", markup=False, style="red" if err.is_terminal else None
    )


def sentence_in(line: str) -> str:
    """Return the sentence of a line that ``say_error`` printed elsewhere, to be part of another; any other line as it is."""
    match = re.fullmatch(r"midsource: (.+?)\.? \[MS-\d{3}: [^\]]+\]", line)
    return match[1] if match else line


def page_of(code: str) -> str:
    """Return where the page of an error stands, below the folder of the sources."""
    return f"docs/errors/{code}.md"


def say_json(value: Any) -> None:
    """Print one JSON object as the last line."""
    sys.stdout.write(json.dumps(value, default=_plain, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def say_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "") -> None:
    """Print a table; numbers to the right, times in UTC to the second, None as an empty cell."""
    kept = [[_cell(value) for value in row] for row in rows]
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        numeric = bool(kept) and all(_is_number(row[position]) for row in kept)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in kept:
        table.add_row(*[_escape(cell) for cell in row])
    out.print(table)


def moment(value: datetime | None) -> str:
    """Return a time as an operator reads it: UTC, to the second; '' for none."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if value else ""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else str(value)


def _is_number(cell: str) -> bool:
    return cell.replace(" ", "").replace(".", "").isdigit() or not cell


def _escape(cell: str) -> str:
    return cell.replace("[", "\\[")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)

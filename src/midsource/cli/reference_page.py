"""What all reference pages have: how one begins, and its tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

HEAD = "<!-- Written by `make docs` from the code. Change the code, not this file. -->\n\n"


def page(parts: Sequence[str]) -> str:
    """Return the page made of these parts, without runs of empty lines."""
    return re.sub(r"\n{3,}", "\n\n", HEAD + "\n".join(parts)).rstrip("\n") + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; a bar inside a cell is escaped."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"

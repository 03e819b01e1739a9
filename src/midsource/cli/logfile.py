"""Read a process's log: the last lines, filtered by level and text, and what comes after, over rotation."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from midsource.model.errors import UserError

LEVELS = ("debug", "info", "warning", "error")
POLL_SECONDS = 0.3
TAIL_BYTES = 20_000_000
"""Read at most the end of a log: two rotated files of 10 MB."""


def tail(path: Path, count: int, *, level: str = "", text: str = "") -> list[str]:
    """Return the last ``count`` lines that pass, the older rotated file included. Raises UserError for a bad level."""
    check_level(level)
    kept: deque[str] = deque(maxlen=count)
    for file in (path.with_name(path.name + ".1"), path):
        if file.exists():
            with file.open("rb") as stream:
                stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
                kept.extend(
                    line for line in stream.read().decode(errors="replace").splitlines() if passes(line, level, text)
                )
    return list(kept)


def follow(path: Path, *, level: str = "", text: str = "") -> Iterator[str]:
    """Yield lines as they are written, without end; a rotated file is followed into its successor."""
    stream = path.open("r", encoding="utf-8", errors="replace")
    stream.seek(0, 2)
    inode = path.stat().st_ino
    rest = ""
    while True:
        chunk = stream.read()
        if chunk:
            *whole, rest = (rest + chunk).split("\n")
            yield from (line for line in whole if passes(line, level, text))
            continue
        with contextlib.suppress(FileNotFoundError):  # between the two steps of a rotation
            if path.stat().st_ino != inode:
                successor = path.open("r", encoding="utf-8", errors="replace")
                stream.close()
                stream, inode = successor, os.fstat(successor.fileno()).st_ino
                continue
        time.sleep(POLL_SECONDS)


def passes(line: str, level: str, text: str) -> bool:
    """Tell whether a line is of ``level`` or above and holds ``text`` (either may be empty)."""
    if text and text not in line:
        return False
    if not level:
        return True
    at_least = LEVELS[LEVELS.index(level) :]
    return any(f'"level": "{name}"' in line or f'"level":"{name}"' in line for name in at_least)


def check_level(level: str) -> None:
    """Raise UserError unless ``level`` is empty or known."""
    if level and level not in LEVELS:
        raise UserError(f"--level {level!r} is no level", f"use one of {', '.join(LEVELS)}")

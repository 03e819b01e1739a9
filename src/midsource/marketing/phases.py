"""The times of a delivery's phases, as its row keeps them: what took how long, for how many people, in which statements.

The statements are timed here and not asked of the server, whose `pg_stat_statements` is rarely there. A phase keeps the
``MAX_STATEMENTS`` that took longest, by the names that the code gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

MAX_STATEMENTS = 5
"""A phase has fewer; a name that changes between releases must not make the row grow."""


class StatementTimes:
    """Adds up how long each named statement takes. ``boot_seconds``: a clock that never steps back."""

    def __init__(self, boot_seconds: Callable[[], float]) -> None:
        self._boot_seconds = boot_seconds
        self._taken: dict[str, dict[str, Any]] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Time the block as one call of statement ``name``, also where it fails."""
        began = self._boot_seconds()
        try:
            yield
        finally:
            seconds = self._boot_seconds() - began
            entry = self._taken.setdefault(name, {"name": name, "calls": 0, "seconds": 0.0, "longest": 0.0})
            entry["calls"] += 1
            entry["seconds"] = round(entry["seconds"] + seconds, 3)
            entry["longest"] = round(max(entry["longest"], seconds), 3)

    def take(self) -> list[dict[str, Any]]:
        """Return what was timed since the last call, and begin anew."""
        taken, self._taken = list(self._taken.values()), {}
        return taken


def add_phase(
    phases: list[dict[str, Any]],
    phase: str,
    started_at: datetime,
    seconds: float,
    rows: int,
    statements: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Return ``phases`` with this time added: a phase that went on in another slice is one entry."""
    entry = {"phase": phase, "started_at": started_at.isoformat(), "seconds": round(seconds, 3), "rows": rows}
    if phases and phases[-1]["phase"] == phase:
        last = phases[-1]
        entry |= {
            "started_at": last["started_at"], "seconds": round(last["seconds"] + seconds, 3), "rows": last["rows"] + rows,
        }  # fmt: skip
        statements = [*last.get("statements", ()), *statements]
        phases = phases[:-1]
    if statements:
        entry["statements"] = _merged(statements)
    return [*phases, entry]


def _merged(statements: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in statements:
        entry = found.setdefault(one["name"], {"name": one["name"], "calls": 0, "seconds": 0.0, "longest": 0.0})
        entry["calls"] += one["calls"]
        entry["seconds"] = round(entry["seconds"] + one["seconds"], 3)
        entry["longest"] = max(entry["longest"], one["longest"])
    return sorted(found.values(), key=lambda entry: -entry["seconds"])[:MAX_STATEMENTS]

"""The times of a delivery's phases, as its row keeps them: what took how long, and for how many people."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def add_phase(
    phases: list[dict[str, Any]], phase: str, started_at: datetime, seconds: float, rows: int
) -> list[dict[str, Any]]:
    """Return ``phases`` with this time added: a phase that went on in another slice is one entry."""
    entry = {"phase": phase, "started_at": started_at.isoformat(), "seconds": round(seconds, 3), "rows": rows}
    if phases and phases[-1]["phase"] == phase:
        last = phases[-1]
        entry |= {
            "started_at": last["started_at"], "seconds": round(last["seconds"] + seconds, 3), "rows": last["rows"] + rows,
        }  # fmt: skip
        return [*phases[:-1], entry]
    return [*phases, entry]

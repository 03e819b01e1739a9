"""The one shape of a check: a function that looks at one thing, and what is declared about it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from midsource.doctor.facts import Facts
from midsource.model.finding import Seen, Severity
from midsource.store.database import Connection

EACH_LOOK_SECONDS = 0
HOURLY_SECONDS = 3_600
BOUND_SECONDS = 5.0
"""Longest statement of a check, unless it says otherwise: a doctor must not be the load."""
BOTH = ("marketing", "mid")
MARKETING = ("marketing",)
MID = ("mid",)

Look: TypeAlias = Callable[[Connection, Facts, datetime], Iterable[Seen]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check. ``look(connection, facts, now)`` runs in a read-only transaction and yields what is not as it should be."""

    name: str
    look: Look
    roles: tuple[str, ...]
    worst: Severity
    """The worst it says."""
    answers: tuple[str, ...]
    """The known failures it is about (F numbers)."""
    remedy: str
    """What is done about it, in general; each finding says it for its case."""
    every_seconds: int = EACH_LOOK_SECONDS
    """Least time between two looks of a worker; 0: at each. A command looks at once."""
    bound_seconds: float = BOUND_SECONDS

    @property
    def looks_at(self) -> str:
        """What it looks at, and from when on that is not as it should be: the docstring of its function on one line."""
        return " ".join((inspect.getdoc(self.look) or "").split())

"""What to do with a delivery part after a failed upload: try again, ask and split, or split at once.

Pure. A refusal for size (413) is decided by the mid before it reads, so the part is split without asking. After a 408, a
5xx, a time-out or a cut the mid may have committed although no answer came: the part is split only when the mid says that
it does not hold it. Where nothing can have arrived (connection refused, no such host), the mid asks to wait (429)
or has no room (507), smaller parts do not help: the same part goes again later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

MIN_ROWS = 50
"""A part is not made smaller for slowness below this: at 50 rows the call itself costs more than the rows."""
FIRST_SECONDS = 1.0
MAX_SECONDS = 60.0
"""Back-off doubles from 1 s to 60 s: a mid that is down for minutes is noticed within a minute of its return."""
JITTER = 0.25
"""Share of the pause that chance takes off, so that three uploads and many accounts do not return together."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that failed: HTTP ``status`` (0: no answer), whether the request may have ``reached`` the mid."""

    status: int
    reached: bool
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Send the same part again after this long."""

    after_seconds: float


@dataclass(frozen=True, slots=True)
class AskThenSplit:
    """Ask the mid whether it holds the part; if it does not, cut it into children of ``rows`` and go on later."""

    rows: int
    after_seconds: float


@dataclass(frozen=True, slots=True)
class Split:
    """Cut the part into children of ``rows`` without asking: the mid refused it before reading."""

    rows: int
    after_seconds: float


Step: TypeAlias = Retry | AskThenSplit | Split


def decide(rows: int, attempt: int, failure: Failure, chance: float) -> Step:
    """Say what follows the failure of try number ``attempt`` (from 1) of a part of ``rows``; ``chance`` in [0, 1)."""
    pause = pause_seconds(attempt, failure.retry_after_seconds, chance)
    if failure.status == 413:
        return Split(rows=(rows + 1) // 2, after_seconds=0.0) if rows > 1 else Retry(pause)
    if not failure.reached or failure.status in (429, 507) or rows <= MIN_ROWS:
        return Retry(pause)
    return AskThenSplit(rows=max(MIN_ROWS, (rows + 1) // 2), after_seconds=pause)


def pause_seconds(attempt: int, retry_after_seconds: float | None, chance: float) -> float:
    """Return the pause after failed try number ``attempt``: doubling, with jitter, never shorter than the mid asked."""
    doubled = min(MAX_SECONDS, FIRST_SECONDS * 2.0 ** min(attempt - 1, 16))
    asked = min(MAX_SECONDS, retry_after_seconds or 0.0)
    return max(asked, doubled * (1.0 - JITTER * chance))


def child_name(part: str, number: int) -> str:
    """Name child ``number`` (from 1) of ``part``: '17' gives '17.1'."""
    return f"{part}.{number}"


def parent_name(part: str) -> str | None:
    """Name the part that ``part`` was cut from, or None for a top-level part."""
    return part.rpartition(".")[0] or None

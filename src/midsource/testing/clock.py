"""A clock that moves when told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class ManualClock:
    """A ``Clock`` for tests: starts at ``start`` and moves by ``advance``; wall and boot time move together."""

    def __init__(self, start: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)) -> None:
        self._now = start
        self._boot = 1000.0
        self._boots = 1

    def now(self) -> datetime:
        """Return the manual wall time."""
        return self._now

    def boot_seconds(self) -> float:
        """Return the manual boot time."""
        return self._boot

    def advance(self, by: timedelta) -> None:
        """Move both clocks forward by ``by``."""
        self._now += by
        self._boot += by.total_seconds()

    def boot_id(self) -> str:
        """Return the number of the boot."""
        return f"boot {self._boots}"

    def boot(self) -> None:
        """Begin another life of the machine."""
        self._boots += 1
        self._boot = 0.0

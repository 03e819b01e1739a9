"""The system's clock: the one place that reads it."""

from __future__ import annotations

import time
from datetime import UTC, datetime

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """Wall time in UTC, and seconds since boot (CLOCK_BOOTTIME where the system has it: it counts suspended time)."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - the one reader of the system's clock

    def boot_seconds(self) -> float:
        """Return seconds since boot."""
        return time.clock_gettime(_BOOT)

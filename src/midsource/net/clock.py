"""The system's clock: the one place that reads it."""

from __future__ import annotations

import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SYSCTL = ("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid")
SYSCTL_SECONDS = 5
"""It answers in milliseconds; a machine that needs longer is as good as one that does not say."""


class SystemClock:
    """Wall time in UTC, and seconds since boot (CLOCK_BOOTTIME where the system has it: it counts suspended time)."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - the one reader of the system's clock

    def boot_seconds(self) -> float:
        """Return seconds since boot."""
        return time.clock_gettime(_BOOT)

    def boot_id(self) -> str:
        """Return which boot this is. Read anew each time: a process that is moved to another machine wakes under another."""
        try:
            return _BOOT_ID.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return _session_of_macos()


def _session_of_macos() -> str:
    try:
        done = subprocess.run(_SYSCTL, capture_output=True, text=True, timeout=SYSCTL_SECONDS, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()

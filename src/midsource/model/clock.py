"""Time as a parameter: whoever needs it takes a ``Clock``; the system's is ``net.clock.SystemClock``."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for people and pointers, boot time for leases, the boot itself for what only memory had."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""

    def boot_seconds(self) -> float:
        """Return seconds since boot, suspended time included: never steps back, comparable within one machine."""

    def boot_id(self) -> str:
        """Return which life of the machine this is: another one after each boot. "" where the system does not say.

        Within a container it is its host's, whose memory holds what was written and is not on the disk yet.
        """

"""A wall clock that can be made to jump for the processes of one home, and for nobody else on the machine.

A small library (`clock_shim.c`, compiled on the spot) is loaded into them; it adds what a mapped file holds. PostgreSQL
is started with an environment of its own and keeps the true time: halves and database then disagree, as they do where
one machine's NTP went wrong.
"""

from __future__ import annotations

import struct
from pathlib import Path

from midsource.bench.sink import compiled

SOURCE = Path(__file__).with_name("clock_shim.c")


class LabClock:
    """The clock of one home. ``env``: what its processes must be started with. Raises Failed without a C compiler."""

    def __init__(self, folder: Path) -> None:
        library = compiled(folder, SOURCE, "-shared", "-fPIC", "-ldl")
        self._file = folder / "clock-offset"
        self.set(0)
        self.env = {"LD_PRELOAD": str(library), "MIDSOURCE_LAB_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """Let the clock be so many seconds ahead of the true time (less than 0: behind)."""
        if not self._file.exists():
            self._file.write_bytes(bytes(8))
        with self._file.open("r+b") as file:  # in place: the processes have this very file mapped
            file.write(struct.pack("=q", seconds))

"""Append-only files that survive the death of their writer.

``Appender.append`` returns when the operating system has all the bytes (no fsync): a killed process loses nothing, a
machine that loses power may. A write that fails half-way (full disk) is taken back, so that a file never holds half a
record in its middle; what a kill leaves torn at the end of an index is cut off by the next start.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the sink keeps."""

    index_segment_lines: int = 50_000
    """One step of deletion of the index, about 20 MB."""
    index_lines: int = 2_000_000
    """About 800 MB on disk and 200 MB of memory; beyond it the oldest segment is dropped whole."""
    body_segment_messages: int = 500
    body_segment_bytes: int = 4 * 1024 * 1024
    """One step of deletion of raw messages: small against all of them, large against one."""
    body_messages: int = 5_000
    body_bytes: int = 100 * 1024 * 1024
    """Enough to look at a demo's mail; a run of a million must not fill the disk."""


class Appender:
    """One open file that only grows. ``size`` is where the next append begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self._file).st_size

    def append(self, data: bytes) -> int:
        """Write ``data`` and return where it begins; OSError: nothing was added."""
        start = self.size
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, start)
            raise
        self.size = start + len(data)
        return start

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_at(path: Path, start: int, length: int) -> bytes:
    """Return ``length`` bytes from ``start``; empty where the file is gone meanwhile."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(length)
    except FileNotFoundError:
        return b""

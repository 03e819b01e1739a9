"""Logs of child processes: one file and its predecessor, both bounded.

A child writes into a pipe, its supervisor into the file: so the size is bounded while the child runs, and a child that
ends mid-line loses nothing. When the file would grow past ``LIMIT_BYTES`` it becomes ``<name>.1`` (replacing the one
before). Nothing is flushed to the disk on purpose: a log is not a ledger.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

LIMIT_BYTES = 10_000_000  # two of them per process: a home with twenty processes stays under half a gigabyte


class BoundedLog:
    """Appends bytes to ``path`` (0600) and rotates by size. A full disk drops log lines, never the process."""

    def __init__(self, path: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = path
        self._limit = limit_bytes
        self._descriptor = self._open()
        self._size = os.fstat(self._descriptor).st_size

    def write(self, data: bytes) -> None:
        """Append ``data``; rotates first when the file would pass its limit. Never raises: what cannot be written is dropped."""
        try:
            if self._size and self._size + len(data) > self._limit:
                self._rotate()
            self._size += os.write(self._descriptor, data)
        except OSError:
            # No space left, quota, a folder that was closed: the supervised process matters more than its log.
            return

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _rotate(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # somebody moved it away: what was written is theirs
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        fresh = self._open()
        os.close(self._descriptor)
        self._descriptor = fresh
        self._size = 0

"""A disk that is really full, and has room again: a small file system of its own, or a limit on the size of files.

Root mounts a tmpfs and fills it (ENOSPC). Anybody else sets RLIMIT_FSIZE on the running processes from outside (EFBIG):
the same refusal of the same writes. Tests run with every way this machine allows.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

BLOCK = b"\0" * 65_536
PAGE = b"\0" * 4_096
LIMIT_BYTES = 65_536
"""Below what a journal of some hundred messages or a segment of WAL has, above a log: the test must hear what is said."""


class FullDisk(Protocol):
    """Where the writes of a test go; it has room until ``fill``, and again after ``free``."""

    def fill(self) -> None:
        """Leave no room."""

    def free(self) -> None:
        """Give the room back."""


class Tmpfs:
    """A file system of ``megabytes`` at ``folder``; see `mounted`."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Write until the system refuses, by blocks and at last by pages."""
        for piece in (BLOCK, PAGE):
            with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as file:
                while file.write(piece) == len(piece):
                    continue

    def free(self) -> None:
        """Remove what was written."""
        self._ballast.unlink(missing_ok=True)


class SizeLimit:
    """Refuses growth of files to processes; ``pids`` says at each call which they are."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids

    def fill(self) -> None:
        """Let no file grow beyond LIMIT_BYTES."""
        self._set(LIMIT_BYTES)

    def free(self) -> None:
        """Lift the limit."""
        self._set(resource.RLIM_INFINITY)

    def _set(self, soft: int) -> None:
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft if soft >= 0 else hard, hard))


def ways() -> list[str]:
    """Return how a disk can be made full here: always by a limit, as root also by a file system of its own."""
    return ["tmpfs", "limit"] if os.geteuid() == 0 else ["limit"]


@contextmanager
def disk(way: str, folder: Path, megabytes: int, pids: Callable[[], Iterable[int]]) -> Iterator[FullDisk]:
    """Give the disk of ``folder``, which must be empty; afterwards it is as before."""
    if way == "limit":
        yield SizeLimit(pids)
        return
    mount, umount = (shutil.which(name) or name for name in ("mount", "umount"))
    subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={megabytes}m,mode=711", "tmpfs", str(folder)], check=True, timeout=10
    )
    try:
        yield Tmpfs(folder)
    finally:
        subprocess.run([umount, "--lazy", str(folder)], check=True, timeout=10)

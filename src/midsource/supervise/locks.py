"""Advisory file locks (``flock``): who uses the server, who owns it, who supervises a home.

A lock belongs to the open file, not to a pid: the kernel drops it when the last copy of the descriptor closes, however
the process died. So a crash never leaves a lock behind, a recycled pid never looks like an owner, and a child that
inherits the descriptor keeps the lock alive (which is how we know that no process of a PostgreSQL server is left).
The files themselves are never deleted: a deleted lock file would let two processes lock two different files of one name.

Limits: ``flock`` needs a local file system; a home on NFS without lock support is refused by the operating system.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def open_lock(path: Path) -> int:
    """Open (and make, 0600) the lock file and return its descriptor, which no child process inherits."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock without waiting; False when somebody else's lock stands against it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def unlock(descriptor: int) -> None:
    """Give the lock back and keep the file open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_held(path: Path) -> bool:
    """Tell whether somebody holds ``path`` exclusively. Asks with a shared lock, so two askers never see each other."""
    descriptor = open_lock(path)
    try:
        return not try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold ``path`` exclusively for the block; yields False (and holds nothing) when somebody else does."""
    descriptor = open_lock(path)
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)

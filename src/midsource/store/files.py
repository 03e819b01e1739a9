"""Small files that are there whole or not at all, and names that a power cut does not take back."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(file: Path, text: str, *, mode: int | None = None, is_lasting: bool = False) -> None:
    """Replace ``file`` in one step: who reads it finds the old text or the new one, never half of it.

    ``mode``: who may read it, from its first byte on; None: as the umask says. ``is_lasting``: text and name are durable
    when this returns; else a power cut may bring the old file back. For one writer at a time. Raises OSError; the old file
    is as it was then, and nothing else is left.
    """
    part = file.with_name(f"{file.name}.new")
    part.unlink(missing_ok=True)  # of a writer that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(part, flags, 0o666 if mode is None else mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            if mode is not None:
                os.fchmod(descriptor, mode)  # the umask took its part
            stream.write(text)
            stream.flush()
            if is_lasting:
                os.fsync(descriptor)
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    if is_lasting:
        keep_names(file.parent)


def keep_names(folder: Path) -> None:
    """Make the names in ``folder`` durable: a file made, renamed or linked there is lost in a power cut until then."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

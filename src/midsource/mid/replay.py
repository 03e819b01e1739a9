"""Reads the journals of others: of dead processes, and of living ones that stalled. See `mid.journal` for who writes them."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from midsource.mid.records import Applied, Ending, Key, Numbered, Outcome, Sealed, Start, Withdrawn, unframe


@dataclass(frozen=True, slots=True)
class Replay:
    """What a journal tells: batches not known to be applied, outcomes never sealed, starts without an outcome.

    ``damage``: how the reading of a file ended in a way that no killed process leaves; nobody can say which starts are missing
    then. What was read counts all the same. ``boot_id``: the boot under which it was written, "" where it does not say.
    """

    unapplied: tuple[Sealed, ...]
    uncertain: tuple[Start, ...]
    torn_bytes: int
    damage: Ending = Ending.WHOLE
    boot_id: str = ""


BOOT = "boot"
"""Link in the folder that names the boot: it leads nowhere, and takes no block of a disk that is full.

It goes last, so that no segment is ever without it but by the loss of the machine.
"""
LOOSE = 1 << 62
"""Number given to outcomes found behind the last mark: no process ever counts so far, so it is theirs alone."""


def read(directory: Path) -> Replay:
    """Read a journal, of a dead process or of one that is stalled. Torn tails are skipped and counted. Raises OSError."""
    batches: dict[tuple[int, int], list[Outcome]] = {}
    starts: dict[Key, Start] = {}
    torn, damage = 0, Ending.WHOLE
    paths = _segments(directory)
    for path in paths:
        segment = int(path.stem)
        told = unframe(path.read_bytes())
        torn += told.torn_bytes
        if told.ending is not Ending.CUT or path != paths[-1]:
            damage = damage or told.ending
        loose: dict[Key, Outcome] = {}
        for record in told.records:
            match record:
                case Start():
                    starts[record.key] = record
                case Withdrawn():
                    starts.pop((record.batch_id, record.token, record.id), None)
                case Outcome():
                    starts.pop(record.key, None)
                    loose[record.key] = record
                case Numbered():
                    batches[segment, record.number] = list(loose.values())
                    loose = {}
                case Applied():
                    batches.pop((record.segment, record.number), None)
        if loose:
            batches[segment, LOOSE] = list(loose.values())
    unapplied = tuple(Sealed(segment, number, tuple(found)) for (segment, number), found in batches.items())
    return Replay(unapplied, tuple(starts.values()), torn, damage, _boot_id(directory))


def held_by_the_living(directory: Path) -> bool:
    """Tell whether the process that writes ``directory`` lives (or somebody recovers it right now)."""
    fd = hold(directory)
    if fd is None:
        return directory.exists()
    os.close(fd)
    return False


def hold(directory: Path) -> int | None:
    """Take the folder of a dead process: a descriptor to close when done, None if it is held or gone."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    if os.fstat(fd).st_nlink == 0:  # whoever held it till now removed it: it is empty, and says nothing
        os.close(fd)
        return None
    return fd


def folders(root: Path) -> list[Path]:
    """Return the journal folders of one instance, those of living processes too."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def remove(directory: Path) -> None:
    """Remove a journal whose content is all in PostgreSQL."""
    for path in _segments(directory):
        path.unlink(missing_ok=True)
    (directory / BOOT).unlink(missing_ok=True)
    directory.rmdir()


def _boot_id(directory: Path) -> str:
    try:
        return str((directory / BOOT).readlink())
    except OSError:  # not there, or no link
        return ""


def _segments(directory: Path) -> list[Path]:
    """Return the segments in their order, which is that of names only up to a million of them."""
    return sorted((path for path in directory.glob("*.log") if path.stem.isdecimal()), key=lambda path: int(path.stem))

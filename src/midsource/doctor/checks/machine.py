"""Checks of the machine that looks: disk, folders that must take writes, the key of the home."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from midsource.doctor.check import BOTH, Check
from midsource.doctor.facts import Facts
from midsource.model.errors import MidsourceError
from midsource.model.finding import Seen, Severity
from midsource.security import keys
from midsource.store.database import Connection

GB = 10**9
FREE_WARNING = (0.10, 20 * GB)
FREE_ERROR = (0.03, 2 * GB)
"""(share, bytes): below both of them. Ten percent of a large disk are weeks, two gigabytes of any are an hour."""


def disk(_conn: Connection, facts: Facts, _now: datetime) -> Iterator[Seen]:
    """Free space where the home, its journals and the embedded server are: below 10 % and 20 GB, an error below 3 % and 2 GB; and free inodes."""
    seen: set[int] = set()
    for what, folder in (("home", facts.home), ("journals", facts.journals), ("database", facts.home / "postgres")):
        if not folder.is_dir():
            continue
        device = folder.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        usage = shutil.disk_usage(folder)
        rest = usage.free / usage.total if usage.total else 1.0
        full = rest < FREE_ERROR[0] and usage.free < FREE_ERROR[1]
        if full or (rest < FREE_WARNING[0] and usage.free < FREE_WARNING[1]):
            yield Seen(
                Severity.ERROR if full else Severity.WARNING,
                evidence=f"{folder}: {usage.free / GB:.1f} GB free of {usage.total / GB:.0f} ({rest:.0%}).",
                cause="When it is full the database writes nothing, and mta processes stop before they could not say what they sent.",
                remedy="`midsource cleanup --dry-run` says what may go; else free space or move the folder.",
                subject=what,
            )
        yield from _inodes(what, folder)


def _inodes(what: str, folder: Path) -> Iterator[Seen]:
    counts = os.statvfs(folder)
    if counts.f_files and counts.f_favail < 0.05 * counts.f_files:
        yield Seen(
            Severity.WARNING,
            evidence=f"{folder}: {counts.f_favail} of {counts.f_files} inodes free.",
            cause="Many small files: no more can be made though there is space.",
            remedy="Find the folder with `du --inodes`, and clear it.",
            subject=f"{what} inodes",
        )


def folders(_conn: Connection, facts: Facts, _now: datetime) -> Iterator[Seen]:
    """Folders of the home that this user may not write to: log, keys, journal."""
    for name in ("log", "keys", "journal"):
        folder = facts.home / name
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            yield Seen(
                Severity.ERROR,
                evidence=f"{folder} cannot be written to by user {os.geteuid()}.",
                cause="It belongs to somebody else, as a rule after a command was run as root.",
                remedy="`chown -R` it to the user that runs midsource.",
                subject=name,
            )


def key(_conn: Connection, facts: Facts, _now: datetime) -> Iterator[Seen]:
    """The key of the home: there, readable by its owner alone, and a key."""
    if not (facts.home / "keys" / "home.key").exists():
        return  # made with the first secret
    try:
        keys.load(facts.home)
    except MidsourceError as exc:
        yield Seen(
            Severity.ERROR,
            evidence=str(exc),
            cause="Secrets of accounts and DKIM keys are encrypted with it.",
            remedy="Give keys/home.key to its owner alone (`chmod 600`), or put it back from the backup.",
        )


CHECKS = (
    Check("machine.disk", disk, BOTH, Severity.ERROR, ("F25", "F26"), "Clean up, free space, or move the folder."),
    Check("machine.folders", folders, BOTH, Severity.ERROR, ("F25", "F94"), "Give the folder back to its owner."),
    Check("machine.key", key, BOTH, Severity.ERROR, ("F101",), "Put keys/home.key back from the backup."),
)  # fmt: skip

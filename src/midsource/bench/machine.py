"""What the system says of processes and of itself: CPU seconds, memory, identity. Linux's /proc."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path

from midsource.model.errors import Failed

_PROC = Path("/proc/self/stat")
_TICKS = os.sysconf("SC_CLK_TCK")
_MIB = 2**20


def must_be_readable() -> None:
    """Raise Failed where processes cannot be read the way this module does."""
    if not _PROC.exists():
        raise Failed("CPU and memory of processes are read from /proc, which is not here", "measure on Linux")


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU seconds of these processes so far, their threads included; an ended one counts nothing."""
    total = 0
    for pid in pids:
        if stat := _stat(pid):
            total += int(stat[11]) + int(stat[12])
    return total / _TICKS


def busy_seconds() -> float:
    """Return the CPU seconds that this machine spent working since its start, whoever caused them."""
    fields = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process now."""
    return _status_mib(pid, "VmRSS")


def peak_mib(pid: int) -> float:
    """Return the most resident memory that a process ever had, or had since `forget_peak`."""
    return _status_mib(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Let the peak of a process begin anew at what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def pss_mib(pids: Iterable[int]) -> float:
    """Return the memory of processes together, pages they share counted once (in the share of each)."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total / _MIB


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def parent(pid: int) -> int:
    """Return who started a process; raises ProcessLookupError where it is gone."""
    if stat := _stat(pid):
        return int(stat[1])
    raise ProcessLookupError(pid)


def describe() -> dict[str, str | int]:
    """Return what a reader of the figures must know of this machine."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cores": os.cpu_count() or 1, "cpu": model, "memory_gib": round(memory / 2**20), "system": platform.system(),
        "kernel": platform.release(), "python": platform.python_version(),
    }  # fmt: skip


def _status_mib(pid: int, key: str) -> float:
    for line in _lines(f"/proc/{pid}/status"):
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat behind the name, [] for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []

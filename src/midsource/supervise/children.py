"""One supervised process: its wish, its life, its log.

``Child`` is the only owner of its ``Popen``: it starts it (own process group, SIGTERM when the supervisor dies), passes
its output on to a bounded log, notices its end, kills what the process left behind in its group, and reports.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from midsource.model.clock import Clock
from midsource.supervise.logs import BoundedLog
from midsource.supervise.restart import Restarts, Situation
from midsource.supervise.spawn import spawn

STOP_SECONDS = 20.0  # an SMTP transaction in flight ends in less; after that SIGKILL
READ_BYTES = 65_536  # a pipe's capacity
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process of a home: ``name`` as in `web@marketing`; ``env`` None means the supervisor's own."""

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """One row of ``ps``. ``state``: running, stopped (by an operator), waiting (for its next start)."""

    name: str
    state: str
    pid: int
    up_seconds: float
    restarts: int
    memory_bytes: int
    last_end: str
    next_start_seconds: float
    log: str


class Child:
    """The life of one process; driven by ``processes.Supervisor`` on its loop."""

    def __init__(self, spec: ProcessSpec, clock: Clock, *, wanted: bool) -> None:
        self.spec = spec
        self.wanted = wanted
        self.replace = False
        self.wake = asyncio.Event()  # something changed: look again
        self.started = asyncio.Event()
        self.gone = asyncio.Event()
        self.gone.set()
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._log: BoundedLog | None = None
        self._began = 0.0
        self._ended = 0.0
        self._restarts = Restarts()
        self._last_end = ""
        self._asked = False  # its end was asked for: no back-off

    def situation(self, *, ending: bool) -> Situation:
        """Return what ``restart.next_step`` decides on; nothing is wanted of a supervisor that ends."""
        wanted = self.wanted and not ending
        return Situation(wanted, self._process is not None, self.replace, self._ended, self._restarts)

    def start(self) -> None:
        """Start the process; one that cannot be started counts as one that ended at once."""
        self.replace = False
        self._asked = False
        self._began = self._clock.boot_seconds()
        try:
            if self._log is None:
                self._log = BoundedLog(self.spec.log)
            process = spawn(
                self.spec.argv, death_signal=signal.SIGTERM, output=subprocess.PIPE, env=self.spec.env, cwd=Path("/")
            )
        except OSError as error:
            self._note_end(f"could not be started ({error})")
            return
        self._process = process
        self.gone.clear()
        self.started.set()
        self._tell(f"started as process {process.pid}")
        if process.stdout is not None:
            os.set_blocking(process.stdout.fileno(), False)
            asyncio.get_running_loop().add_reader(process.stdout.fileno(), self._read)

    async def stop(self) -> None:
        """End the process: SIGTERM, then SIGKILL after ``STOP_SECONDS``; returns when it is gone."""
        self._asked = True
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.gone.wait()
        except TimeoutError:
            self._tell(f"did not end within {STOP_SECONDS:.0f} s of SIGTERM and is killed", "warning")
            self.kill()
            await self.gone.wait()

    def kill(self) -> None:
        """Kill the process and its group at once."""
        self._signal(signal.SIGKILL)

    def notice_end(self) -> bool:
        """Reap the process if it has ended; True if it has. Called on SIGCHLD."""
        process = self._process
        if process is None or not _has_ended(process):
            return False
        self._signal(signal.SIGKILL)  # not reaped yet, so the group's number is still its own: what it left behind goes
        code = process.wait()
        self._read()
        if process.stdout is not None:
            asyncio.get_running_loop().remove_reader(process.stdout.fileno())
            process.stdout.close()
        self._process = None
        self._note_end(_describe(code))
        return True

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def report(self) -> ProcessReport:
        """Return the row that ``ps`` shows."""
        now = self._clock.boot_seconds()
        running = self._process is not None
        due = max(0.0, self._ended + self._restarts.delay_seconds() - now)
        return ProcessReport(
            name=self.spec.name,
            state="running" if running else "waiting" if self.wanted else "stopped",
            pid=self._process.pid if self._process else 0,
            up_seconds=round(now - self._began, 1) if running else 0.0,
            restarts=self._restarts.total,
            memory_bytes=_memory_bytes(self._process.pid) if self._process else 0,
            last_end=self._last_end,
            next_start_seconds=round(due, 1) if self.wanted and not running else 0.0,
            log=str(self.spec.log),
        )

    def forgive(self) -> None:
        """Forget early ends: an operator who starts it by hand does not wait for a back-off."""
        self._restarts = Restarts(0, self._restarts.total)

    def _note_end(self, how: str) -> None:
        self._ended = self._clock.boot_seconds()
        self._last_end = how
        if self._asked:
            self.forgive()
        else:
            self._restarts = self._restarts.after(self._ended - self._began)
        again = "" if self._asked else f"; next start in {self._restarts.delay_seconds():.0f} s"
        self._tell(f"{how}{again}", "info" if self._asked else "warning")
        self.started.clear()
        self.gone.set()
        self.wake.set()

    def _read(self) -> None:
        if self._process is None or self._process.stdout is None or self._log is None:
            return
        try:
            data = os.read(self._process.stdout.fileno(), READ_BYTES)
            while data:
                self._log.write(data)
                if len(data) < READ_BYTES:
                    return
                data = os.read(self._process.stdout.fileno(), READ_BYTES)
        except BlockingIOError:
            return
        asyncio.get_running_loop().remove_reader(self._process.stdout.fileno())  # it closed its output

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            try:
                os.killpg(self._process.pid, number)
            except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
                return

    def _tell(self, sentence: str, level: str = "info") -> None:
        """Write a line of the supervisor's own between those of the child, in their form."""
        if self._log is None:
            return
        line = {
            "event": "supervised",
            "action": "supervise",
            "process": self.spec.name,
            "line": sentence,
            "level": level,
            "timestamp": f"{self._clock.now():%Y-%m-%dT%H:%M:%S.%fZ}",
        }
        self._log.write(json.dumps(line).encode() + b"\n")


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether it has ended without reaping it, where the system can (else it is reaped)."""
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _describe(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def _memory_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0

"""Kills processes of a running home by kind, and tells when what was killed is back."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.crash.plan import Kind, Phase, Strike
from tests.crash.progress import Eye, Progress

from midsource.cli.ground import Home
from midsource.cli.launching import rows_of
from midsource.config import load
from midsource.model.errors import MidsourceError
from midsource.net.clock import SystemClock
from midsource.supervise.control import ControlClient
from midsource.supervise.places import HomeFiles
from midsource.supervise.state import Phase as ServerPhase
from midsource.supervise.state import State

ESTABLISHED = "01"
"""State of a connection in /proc/net/tcp (include/net/tcp_states.h)."""
_BACKEND = "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() order by backend_start limit 1"


@dataclass(slots=True)
class Hit:
    """One kill that happened: when, at what progress, and ``connections`` to mail servers the mta had then."""

    strike: Strike
    pid: int
    at: datetime
    progress: Progress
    connections: int
    back_seconds: float | None = None
    _struck: float = 0.0

    @property
    def phase(self) -> Phase:
        """What it met."""
        return self.progress.phase(self.strike.phase)

    @property
    def kind(self) -> Kind:
        """What was killed."""
        return self.strike.kind

    def look(self, home: Home, eye: Eye) -> bool:
        """Tell whether what was killed is back, and note how long that took."""
        if self.back_seconds is None and _is_back(home, eye, self.kind, self.pid):
            self.back_seconds = time.monotonic() - self._struck
        return self.back_seconds is not None


def hit(home: Home, eye: Eye, strike: Strike, progress: Progress) -> Hit | None:
    """Kill what the strike says; None: there was no such process (it is just being started again)."""
    pid = pid_of(home, eye, strike.kind)
    if not pid:
        return None
    connections = 0
    try:
        if strike.kind is Kind.MTA:
            os.kill(pid, signal.SIGSTOP)  # so that what is counted is what dies
            connections = mail_connections(home, pid)
        struck, at = time.monotonic(), SystemClock().now()
        os.kill(pid, signal.SIGINT if strike.kind is Kind.POSTGRES_RESTART else signal.SIGKILL)
    except OSError:
        return None
    return Hit(strike, pid, at, progress, connections, _struck=struck)


def pid_of(home: Home, eye: Eye, kind: Kind) -> int:
    """Return the process of that kind, 0 where there is none."""
    with contextlib.suppress(MidsourceError, KeyError, ValueError):
        match kind:
            case Kind.SUPERVISOR:
                return int(str(ControlClient(home.path).call("status")["pid"]))
            case Kind.POSTGRES | Kind.POSTGRES_RESTART:
                return State.read(HomeFiles(home.path)).postmaster
            case Kind.POSTGRES_HOLDER:
                return State.read(HomeFiles(home.path)).holder
            case Kind.POSTGRES_BACKEND:
                backends = eye.ask("mid1", _BACKEND)
                return int(backends[0][0]) if backends else 0
            case _:
                rows = rows_of(ControlClient(home.path).call("ps"))
                return next((row["pid"] for row in rows if row["name"] == kind and row["state"] == "running"), 0)
    return 0


def mail_connections(home: Home, pid: int) -> int:
    """Return how many connections to the sandbox's SMTP port are established (there is one mta process)."""
    port = f":{load(home.path).sandbox.smtp_port:04X}"
    lines = Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(1 for row in fields if row[2].endswith(port) and row[3] == ESTABLISHED)


def everything_runs(home: Home) -> bool:
    """Tell whether the supervisor says that each process runs."""
    try:
        rows = rows_of(ControlClient(home.path).call("ps"))
    except MidsourceError:
        return False
    return all(row["state"] == "running" for row in rows)


def _is_back(home: Home, eye: Eye, kind: Kind, pid: int) -> bool:
    try:
        match kind:
            case Kind.SUPERVISOR:
                return int(str(ControlClient(home.path).call("status")["pid"])) != pid
            case Kind.POSTGRES | Kind.POSTGRES_RESTART | Kind.POSTGRES_HOLDER | Kind.POSTGRES_BACKEND:
                state = State.read(HomeFiles(home.path))
                runs = state.phase is ServerPhase.RUNNING and pid not in (state.holder, state.postmaster)
                return runs and bool(eye.ask("mid1", "select 1")) and not Path(f"/proc/{pid}").exists()
            case _:
                rows = rows_of(ControlClient(home.path).call("ps"))
                return any(row["name"] == kind and row["state"] == "running" and row["pid"] != pid for row in rows)
    except (MidsourceError, KeyError, ValueError):
        return False

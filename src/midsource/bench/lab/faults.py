"""Begins and ends the faults of a plan in a running home; each can be ended at any time, also twice."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from midsource.bench.lab.clock import LabClock
from midsource.bench.lab.plan import Fault, Kind
from midsource.testing import proxy
from midsource.testing.full_disk import FullDisk
from midsource.testing.proxy import FaultProxy, Seen

EVERY_THIRD = 3


class Home(Protocol):
    """The home under test, from outside (cli/ground.py)."""

    def running(self) -> dict[str, int]:
        """Return the processes that run now, with their pids."""

    def pid(self, name: str) -> int:
        """Return the pid of a process, of ``supervisor`` or of ``postgres``."""

    def up(self) -> None:
        """Start everything, as an operator's init system does when the supervisor ended."""

    def rows(
        self, instance: str, statement: str, params: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Query the database of an instance."""

    def truth(self, delivery: int) -> list[dict[str, Any]]:
        """Return what the sink holds of a delivery."""

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Wait until a condition holds."""

    def delivery(self, list_name: str) -> int:
        """Create a delivery to a list."""

    def run(self, *words: str, code: int | None = 0, seconds: float = 120) -> Any:
        """Run a command."""

    def json(self, *words: str, code: int | None = 0, seconds: float = 120) -> dict[str, Any]:
        """Run a command with ``--json``."""


@dataclass(slots=True)
class Faults:
    """What is broken at this moment. ``parts``: how many parts were sent, of which every third was answered 408."""

    home: Home
    link: FaultProxy
    clock: LabClock
    disk: FullDisk
    parts: int = 0
    refused: int = 0
    _delay: float = 0.0
    _is_cut: bool = field(default=False)

    def __post_init__(self) -> None:
        """Let the link ask us about each request."""
        self.link.fault = self._of_request

    def begin(self, fault: Fault) -> None:
        """Break it. What is not there to be broken at this moment (a process just being started) is left alone."""
        match fault.kind:
            case Kind.LINK_CUT:
                self._is_cut = True
                self.link.down()
            case Kind.SLOW_LINK:
                self._delay = float(fault.detail)
            case Kind.CLOCK:
                self.clock.set(int(fault.detail))
            case Kind.DISK:
                self.disk.fill()
            case Kind.POSTGRES:
                self._signal("postgres", signal.SIGINT if fault.detail == "shutdown" else signal.SIGKILL)
            case Kind.KILLED:
                self._signal(fault.detail, signal.SIGKILL)

    def end(self, fault: Fault) -> None:
        """Mend what we broke; what was killed is for the system to start again, but for the supervisor itself."""
        match fault.kind:
            case Kind.LINK_CUT:
                if self._is_cut:
                    self._is_cut = False
                    self.link.up()
            case Kind.SLOW_LINK:
                self._delay = 0.0
            case Kind.CLOCK:
                self.clock.set(0)
            case Kind.DISK:
                self.disk.free()
            case Kind.KILLED:
                if fault.detail == "supervisor":
                    self.home.up()
            case Kind.POSTGRES:
                pass

    def _signal(self, name: str, number: signal.Signals) -> None:
        pid = self.home.pid(name) if name in ("postgres", "supervisor") else self.home.running().get(name, 0)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _of_request(self, seen: Seen) -> proxy.Fault:
        if seen.method == "PUT" and "/parts/" in seen.path:
            self.parts += 1
            if self.parts % EVERY_THIRD == 0:
                self.refused += 1
                # One before the mid heard of it, the next after it committed: the sender cannot tell them apart.
                return proxy.Answer(408) if self.refused % 2 else proxy.ForwardThenAnswer(408)
        return proxy.Delay(self._delay) if self._delay else proxy.Pass()

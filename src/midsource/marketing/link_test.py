"""Try the link to a mid step by step, each with its duration, cause and remedy: `account test` and the console's button.

Order: *stored* (account and key can be read) → *name* (the host has an address) → *connection* (TCP) → *tls* (where the URL
says https) → *mid* (what answers is a mid) → *key* (it knows ours) → *protocol* → *clock* → *dispatch* (it sends). The first
step that fails ends the test; what comes after it is untried. A failure is an answer here, not an exception.

Bounds: CONNECT_SECONDS for connection and handshake, ``wire.client.CALL_SECONDS`` for the call; the name is looked up by
the system's resolver, within its own time. What was found is kept with the account, durable on return.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

from midsource.marketing import accounts
from midsource.model.clock import Clock
from midsource.model.errors import MidsourceError, NotFound
from midsource.store.database import Database
from midsource.wire import failures
from midsource.wire.client import MAX_SKEW_SECONDS, MidClient
from midsource.wire.schema import PROTOCOL, Hello

CONNECT_SECONDS = 5.0
"""What the link's own calls allow for connecting (wire/client.py)."""
MAX_ADDRESSES_TOLD = 4
_NO_KEY, _OTHER_PROTOCOL = 401, 426

T = TypeVar("T")


class Outcome(StrEnum):
    """How a step ended."""

    FINE = "fine"
    WARNING = "warning"
    FAILED = "failed"
    UNTRIED = "untried"


STEPS = ("stored", "name", "connection", "tls", "mid", "key", "protocol", "clock", "dispatch")


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what it found (``told``), or what is wrong and what to do (``problem``)."""

    name: str
    outcome: Outcome
    seconds: float = 0.0
    told: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LinkTest:
    """What a test found: every step, the mid's own words (None: it gave none), and by how much its clock is ahead."""

    steps: tuple[Step, ...]
    hello: Hello | None
    skew_seconds: float

    @property
    def problems(self) -> tuple[str, ...]:
        """Every problem with its remedy as a sentence; none: fine."""
        return tuple(step.problem for step in self.steps if step.problem)

    @property
    def seconds(self) -> float:
        """How long all of it took."""
        return sum(step.seconds for step in self.steps)


def run(database: Database, home: Path, name: str, clock: Clock) -> LinkTest:
    """Try the link of account ``name`` and keep what was found. Raises NotFound; Unhealthy where our database is away."""
    test = _Test(clock)
    try:
        with test.opened(database, home, name) as client:
            test.reach(client.url)
            test.call(client)
    except NotFound:  # nothing was tried: the name is wrong, not the link
        raise
    except _Failed as exc:
        with database.transaction() as conn:
            accounts.failed(conn, name, exc.sentence)
    else:
        assert test.hello is not None
        with database.transaction() as conn:
            accounts.answered(conn, name, test.hello.generation)
    return test.result()


class _Failed(Exception):
    """A step failed; the rest is not tried."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class _Test:
    """The steps so far."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._steps: list[Step] = []
        self.hello: Hello | None = None
        self.skew = 0.0
        self._is_https = False

    def result(self) -> LinkTest:
        """Return every step, those that were not tried as such."""
        rest = STEPS[STEPS.index(self._steps[-1].name) + 1 :]
        untried = [Step(name, Outcome.UNTRIED) for name in rest if name != "tls" or self._is_https]
        return LinkTest((*self._steps, *untried), self.hello, self.skew)

    def opened(self, database: Database, home: Path, name: str) -> MidClient:
        """Read account and key."""
        began = self._clock.boot_seconds()
        try:
            client = accounts.open_client(database, home, name, self._clock)
        except NotFound:
            raise
        except MidsourceError as exc:
            self._fail("stored", began, str(exc))
        self._is_https = client.url.startswith("https:")
        self._fine("stored", began, client.url)
        return client

    def reach(self, url: str) -> None:
        """Look the name up, connect, and shake hands where the URL says https."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        found = self._try("name", url, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        self._tell(", ".join(addresses[:MAX_ADDRESSES_TOLD]))
        connection = self._try("connection", url, lambda: socket.create_connection((host, port), CONNECT_SECONDS))
        with connection:
            self._tell(f"{connection.getpeername()[0]} port {port}")
            if self._is_https:
                context = ssl.create_default_context()
                with self._try("tls", url, lambda: context.wrap_socket(connection, server_hostname=host)) as secured:
                    self._tell(" ".join(filter(None, (secured.version(), (secured.cipher() or ("",))[0]))))

    def call(self, client: MidClient) -> None:
        """Ask the mid who it is, and judge what it says."""
        began = self._clock.boot_seconds()
        try:
            hello = client.hello()
        except MidsourceError as exc:
            self._refused(began, exc)
        self.hello, self.skew = hello, client.skew_seconds(hello.now)
        self._fine("mid", began, f"{hello.instance}, version {hello.version}, transport {hello.transport}")
        now = self._clock.boot_seconds()
        self._fine("key", now, f"it knows us as {hello.account}")
        self._fine("protocol", now, str(PROTOCOL))
        apart = abs(self.skew) > MAX_SKEW_SECONDS
        self._note("clock", f"{round(self.skew, 1) + 0.0:+.1f} s", accounts.skew_sentence(self.skew) if apart else "")
        off = "The mid takes deliveries but does not send: dispatch is off there; see its `midsource status`."
        self._note("dispatch", "on" if hello.dispatch else "off", "" if hello.dispatch else off)

    def _refused(self, began: float, exc: MidsourceError) -> NoReturn:
        """Say at which step a call failed: a mid that refuses a key is a mid."""
        status = failures.status_of(exc)
        if status in (_NO_KEY, _OTHER_PROTOCOL) and not isinstance(exc, failures.NotAMid):
            self._fine("mid", began, f"HTTP {status}")
            began = self._clock.boot_seconds()
            if status == _OTHER_PROTOCOL:
                self._fine("key", began, "")
        self._fail({_NO_KEY: "key", _OTHER_PROTOCOL: "protocol"}.get(status, "mid"), began, str(exc))

    def _try(self, name: str, url: str, act: Callable[[], T]) -> T:
        began = self._clock.boot_seconds()
        try:
            found = act()
        except (OSError, UnicodeError) as exc:
            self._fail(name, began, _sentence(name, exc, url))
        self._fine(name, began, "")
        return found

    def _fine(self, name: str, began: float, told: str) -> None:
        self._steps.append(Step(name, Outcome.FINE, self._clock.boot_seconds() - began, told))

    def _tell(self, told: str) -> None:
        self._steps[-1] = replace(self._steps[-1], told=told)

    def _note(self, name: str, told: str, problem: str) -> None:
        self._steps.append(Step(name, Outcome.WARNING if problem else Outcome.FINE, told=told, problem=problem))

    def _fail(self, name: str, began: float, sentence: str) -> NoReturn:
        self._steps.append(Step(name, Outcome.FAILED, self._clock.boot_seconds() - began, problem=sentence))
        raise _Failed(sentence)


def _sentence(step: str, exc: OSError | UnicodeError, url: str) -> str:
    """Name a failure before HTTP in the link's own words."""
    if isinstance(exc, TimeoutError):
        did = "did not shake hands" if step == "tls" else "took no connection"
        return f"{url} {did} within {CONNECT_SECONDS:.0f} s: check network and firewall between the halves."
    if isinstance(exc, socket.gaierror | ConnectionRefusedError | ssl.SSLError):
        return str(failures.from_transport(exc, url, CONNECT_SECONDS))
    return f"{url} cannot be reached ({exc}): check network and firewall between the halves."

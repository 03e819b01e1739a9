"""Two machines on one PostgreSQL: each a home folder with every process of both instances, and who stands beside them.

Beside them, on machines of their own as it were: the PostgreSQL, the provider that takes the mail (a home that runs
nothing but the sandbox), and a balancer before the web processes of each instance. As root each machine has a host name
of its own (a UTS namespace), as real ones do; elsewhere both have this machine's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from midsource.cli.ground import COMMAND_SECONDS, PORTS_APART, Done, Home
from midsource.cli.setup import free_port
from midsource.config import load
from midsource.model.errors import Failed, MidsourceError
from midsource.supervise.postgres import EmbeddedPostgres
from midsource.testing.balancer import Balancer

PORTS_FROM = 20_000
KINDS = ("web@marketing", "worker@marketing", "web@mid1", "worker@mid1", "mta@mid1")
"""What each machine runs: of each instance one web, one worker, one mta, so two of each in all."""
_CONFIG = """\
[postgres]
mode = "external"

[sandbox]
enabled = {sandbox}
smtp_port = {smtp}
http_port = {inbox}

[instances.marketing]
role = "marketing"
database_url = "{marketing}"
port = {marketing_port}

[instances.mid1]
role = "mid"
database_url = "{mid1}"
port = {mid_port}
public_url = "http://127.0.0.1:{balanced}"
transport = "{transport}"
smarthost = "127.0.0.1:{smtp}"
"""


class Machine(Home):
    """One machine. ``host``: its name."""

    def __init__(self, folder: Path, host: str, config: str) -> None:
        super().__init__(folder)
        self.host = host
        folder.mkdir(mode=0o700)
        (folder / "midsource.toml").write_text(config, encoding="utf-8")

    def run(self, *words: str, code: int | None = 0, seconds: float = COMMAND_SECONDS) -> Done:
        """Run the real command on this machine; fail unless it ends with ``code`` (None: any)."""
        argv = [*_named(self.host), sys.executable, "-P", "-m", "midsource", "--home", str(self.path), *words]
        return self.ended(words, code, argv, seconds)

    def rows(
        self, instance: str, statement: str, params: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Query the database of an instance."""
        with psycopg.connect(load(self.path).instance(instance).database_url) as conn:
            cursor = conn.execute(statement.encode(), params)
            return list(cursor.fetchall()) if cursor.description else []

    def lose_power(self) -> None:
        """Kill -9 everything on this machine at once."""
        pids = [self.pid("supervisor"), *self.running().values()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), f"{self.host} is dark", 20)

    def end(self) -> None:
        """Stop what runs here; the PostgreSQL is another machine's."""
        with contextlib.suppress(Failed):
            self.run("down", code=None)
        with contextlib.suppress(MidsourceError, KeyError, ValueError):
            os.kill(self.pid("supervisor"), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class TwoMachines:
    """The two, and the balancers before their web processes."""

    machines: tuple[Machine, Machine]
    before_marketing: Balancer
    before_mid: Balancer

    def other(self, machine: Machine) -> Machine:
        """Return the machine that is left."""
        return self.machines[self.machines[0] is machine]


@contextmanager
def two_machines(place: Path) -> Iterator[TwoMachines]:
    """Make everything in an empty folder that any user may pass through; both machines run."""
    ports = _ports()
    (place / "server").mkdir(mode=0o711)
    server = EmbeddedPostgres(place / "server", system_folder=place / "system", settings={"max_connections": "200"})
    with ExitStack() as stack:
        stack.callback(server.stop_now)
        use = stack.enter_context(server.use())
        for name in ("marketing", "mid1"):
            use.ensure_database(name)
        urls = {name: use.dsn(name) for name in ("marketing", "mid1")}
        before_marketing = stack.enter_context(Balancer([ports["a1"], ports["b1"]]))
        before_mid = stack.enter_context(Balancer([ports["a2"], ports["b2"]]))
        shared = urls | {"smtp": ports["smtp"], "inbox": ports["inbox"], "balanced": before_mid.port}
        provider = Machine(
            place / "provider",
            "provider",
            _CONFIG.format(
                sandbox="true", transport="sandbox", marketing_port=ports["a1"], mid_port=ports["a2"], **shared
            ),
        )
        first, second = (
            Machine(
                place / host,
                host,
                _CONFIG.format(
                    sandbox="false",
                    transport="smarthost",
                    marketing_port=ports[f"{host}1"],
                    mid_port=ports[f"{host}2"],
                    **shared,
                ),
            )
            for host in ("a", "b")
        )
        first.run("init")
        for other in (second, provider):  # one key for all machines of an instance: it opens the account's secret
            shutil.copytree(first.path / "keys", other.path / "keys")
        second.run("init")
        for machine in (provider, first, second):
            stack.callback(machine.end)
        provider.run("up", "--only", "sandbox@mid1", "--detach")
        for machine in (first, second):
            machine.run("up", "--detach")
        yield TwoMachines((first, second), before_marketing, before_mid)


def _named(host: str) -> list[str]:
    """Return what runs a command under a host name of its own, where this user may."""
    if os.geteuid() or not shutil.which("unshare"):
        return []
    return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', f"machine-{host}"]


def _ports() -> dict[str, int]:
    """Return free ports by what listens there; the balancers take any."""
    first = free_port(PORTS_FROM + os.getpid() % 500 * PORTS_APART)
    second = free_port(first + 10)
    return {"a1": first, "a2": first + 1, "smtp": first + 2, "inbox": first + 3, "b1": second, "b2": second + 1}

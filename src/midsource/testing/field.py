"""A whole mid without its web process: real mta processes, the real sandbox, a real PostgreSQL. For stories of sending.

Processes are separate ones, so that they can be stopped (SIGSTOP), killed and started anew as in life.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from midsource.config import Config, InstanceConfig, Transport
from midsource.mid import accounts, deliveries, orders, reception
from midsource.mid.connections import STOP_SECONDS
from midsource.mid.dispatch import LEASE_SECONDS
from midsource.mid.recovery import LOST_SECONDS, STALLED_SECONDS
from midsource.model.ids import delivery_id
from midsource.net.clock import SystemClock
from midsource.net.resolver import StaticRoute
from midsource.store import migrate
from midsource.store.database import Database
from midsource.wire import rows
from midsource.wire.schema import MAX_PART_ROWS, DeliverySpec, Finalise, PartRow

_MTA = """
import pickle, sys
from dataclasses import replace
from midsource.cli.log import set_up_logging
from midsource.mid import mta
from midsource.net.clock import SystemClock
from midsource.net.resolver import StaticResolver
set_up_logging(sys.argv[2])
config, routes, seconds = pickle.load(open(sys.argv[1], "rb"))
outfit = mta.outfit_of(config, config.instance("mid1"), SystemClock())
resolver = StaticResolver(routes, outfit.resolver)
outfit = replace(outfit, resolver=resolver, **seconds)
mta.run_with(outfit, config, config.instance("mid1"), sys.argv[2])
"""
_SANDBOX = "import sys, pathlib; from midsource.sandbox.app import run; run(pathlib.Path(sys.argv[1]), 0, 0)"


@dataclass(slots=True)
class Field:
    """One home with a mid in it. Use as a context: every process is ended."""

    home: Path
    dsn: str
    transport: Transport = "sandbox"
    smarthost: str = ""
    connections: int = 4
    lease_seconds: float = LEASE_SECONDS
    stalled_seconds: float = STALLED_SECONDS
    lost_seconds: float = LOST_SECONDS
    stop_seconds: float = STOP_SECONDS
    routes: list[StaticRoute] = field(default_factory=list)
    """Where single domains go instead; the rest goes as ``transport`` says."""
    database: Database = field(init=False)
    account_id: int = field(init=False)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _serial: int = 0

    def __enter__(self) -> Field:
        """Migrate the database where it is empty and make an account."""
        now = SystemClock().now()
        self.database = Database("mid1", self.dsn, application="field", max_connections=6)
        migrate.upgrade(self.database, "mid")
        with self.database.transaction() as conn:
            migrate.describe_instance(conn, "mid1", "mid")
            migrate.ensure_partitions(conn, "mid", now)
            self.account_id, _ = accounts.create(conn, "default")
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(20)
        self.database.close()

    def config(self) -> Config:
        """Return the configuration the processes get."""
        instance = InstanceConfig(
            "mid1", "mid", self.dsn, port=1, transport=self.transport, smarthost=self.smarthost,
            helo="mid.test", connections_per_destination=self.connections,
        )  # fmt: skip
        return Config(self.home, instances=(instance,))

    # -- processes

    def sandbox(self) -> subprocess.Popen[bytes]:
        """Start the sandbox and wait until it listens."""
        started = self._start(_SANDBOX, str(self.home), log="sandbox")
        self.wait_until((self.home / "sandbox" / "ports.json").exists, 20)
        return started

    def mta(self, name: str = "mta@mid1") -> subprocess.Popen[bytes]:
        """Start an mta process."""
        file = self.home / "config.pickle"
        names = ("lease_seconds", "stalled_seconds", "lost_seconds", "stop_seconds")
        seconds = {name: getattr(self, name) for name in names}
        file.write_bytes(pickle.dumps((self.config(), self.routes, seconds)))
        return self._start(_MTA, str(file), name, log=name)

    def end(self, process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
        """Signal a process and return its exit status."""
        process.send_signal(number)
        return process.wait(40)

    def log(self, name: str = "mta@mid1") -> str:
        """Return what a process logged."""
        return (self.home / f"{name}.log").read_text()

    def _start(self, script: str, *argv: str, log: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{log}.log").open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", script, *argv], stdout=file, stderr=file, env={"PATH": os.defpath}
            )
        self.processes.append(process)
        return process

    # -- deliveries

    def deliver(self, addresses: Sequence[str], *, start: bool = True, **spec: Any) -> int:
        """Hand over a delivery to ``addresses`` (ids 1 to n) as marketing would, and start it."""
        now = SystemClock().now()
        self._serial += 1
        number = delivery_id(now, self._serial)
        wanted = DeliverySpec(
            id=number, label=f"delivery {self._serial}", subject="Hello {{ recipient.name }}", brand="shop",
            html="<p>Dear {{ recipient.name }}</p>", text="Dear {{ recipient.name }}", from_name="Shop",
            from_address="news@shop.test", unsubscribe_url="https://shop.test/u/{token}",
        )  # fmt: skip
        deliveries.put_delivery(self.database, self.account_id, _changed(wanted, spec), now)
        hashes = []
        for part, at in enumerate(range(0, len(addresses), MAX_PART_ROWS), 1):
            lines = [
                rows.encode_row(PartRow(id=n, to=to, d={"name": f"Person {n}"}))
                for n, to in enumerate(addresses[at : at + MAX_PART_ROWS], at + 1)
            ]
            hashes += [rows.row_hash(line) for line in lines]
            raw = b"".join(lines)
            reception.put_part(self.database, self.account_id, number, str(part), raw, rows.content_hash(raw), now)
        claim = Finalise(messages=len(addresses), row_hash=str(rows.sum_hashes(hashes)), parts=part)
        assert reception.finalise(self.database, self.account_id, number, claim, now).agreed
        if start:
            self.order(number, "start")
        return number

    def order(self, delivery: int, verb: str) -> int:
        """Give an order; return the state after it."""
        return orders.command(self.database, self.account_id, delivery, verb, SystemClock().now()).state

    def state(self, delivery: int) -> int:
        """Return the delivery's state."""
        with self.database.connection() as conn:
            return int(deliveries.find(conn, self.account_id, delivery).state)

    def ledger(self, delivery: int) -> Mapping[int, int]:
        """Return the number of messages in each state, counted in the ledger."""
        with self.database.connection() as conn:
            found = conn.execute(
                "select state, count(*) from message where delivery_id = %s group by 1", (delivery,)
            ).fetchall()
        return dict(found)

    def ids(self, delivery: int, state: int) -> set[int]:
        """Return the messages in ``state``."""
        with self.database.connection() as conn:
            found = conn.execute("select id from message where delivery_id = %s and state = %s", (delivery, state))
            return {id_ for (id_,) in found.fetchall()}

    def truth(self, delivery: int) -> Counter[int]:
        """Return how many copies of each message the sandbox holds."""
        return Counter(id_ for id_, _ in self._kept(delivery))

    def unanswered(self, delivery: int) -> set[int]:
        """Return the messages that the sandbox keeps but dropped the connection for instead of answering."""
        return {id_ for id_, answered in self._kept(delivery) if not answered}

    def _kept(self, delivery: int) -> list[tuple[int, bool]]:
        ports = json.loads((self.home / "sandbox" / "ports.json").read_text())
        url = f"http://127.0.0.1:{ports['http']}/truth.ndjson?delivery={delivery}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            lines = [json.loads(line) for line in answer]
        return [(int(line["id"].rpartition(".")[2]), line["answered"]) for line in lines]

    def wait_until(self, question: Callable[[], object], seconds: float = 60) -> None:
        """Wait for ``question`` to be answered yes; raise AssertionError with the log's end after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not question():
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-3000:] for path in self.home.glob("*.log"))
                raise AssertionError(f"still not so after {seconds} s\n{logs}")
            time.sleep(0.05)

    def wait_finished(self, delivery: int, seconds: float = 60) -> None:
        """Wait until the delivery is finished."""
        self.wait_until(lambda: self.state(delivery) == 95, seconds)


def _changed(spec: DeliverySpec, changes: Mapping[str, Any]) -> DeliverySpec:
    """Return ``spec`` with ``changes``."""
    return msgspec.structs.replace(spec, **changes)

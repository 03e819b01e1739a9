"""A mid that really sends: a home of its own, a PostgreSQL database, real `mta` processes, a sink as smarthost.

A delivery comes in as from a marketing instance (parts received, both sides compared), is ordered to start, and every
message is done when its outcome is durable in PostgreSQL. Two sender domains: one has an RSA-2048 key, one has none.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from midsource.bench import machine, newsletter
from midsource.bench.sink import LightSink, light_sink
from midsource.bench.stage import Bench, Process, wait_until
from midsource.mid import accounts, deliveries, dkim_keys, orders, reception
from midsource.model.delivery import FINAL
from midsource.model.errors import Failed
from midsource.model.ids import delivery_id
from midsource.model.message import MessageState
from midsource.security import keys
from midsource.store import migrate, processes
from midsource.store.database import Connection, Database, scalar
from midsource.wire import rows
from midsource.wire.schema import MAX_PART_ROWS, DeliverySpec, Finalise, PartRow

INSTANCE = "mid1"
SIGNED, UNSIGNED = "news.exemple.fr", "plain.exemple.fr"
"""Sender domains: the first has a key."""
DESTINATIONS = 10
"""Recipient domains: a shop's list has a few that matter, and each is a queue of its own."""
CONNECTIONS = 4
"""Connections to each destination of one mta process: the default of a home."""
START_SECONDS = 30.0
RUN_SECONDS = 600.0
END_SECONDS = 120.0
"""From the last outcome to *finished*: a second or two, or more on a machine that others use."""
_CONFIG = """\
[postgres]
mode = "external"

[sandbox]
enabled = false

[instances.{name}]
role = "mid"
database_url = "{url}"
port = 1
helo = "mid.exemple.fr"
transport = "smarthost"
smarthost = "{smarthost}"
connections_per_destination = {connections}
mtas = {mtas}
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """What one delivery took from the order to start to the last durable outcome."""

    messages: int
    seconds: float
    mta_cpu_seconds: float
    database_cpu_seconds: float
    sink_cpu_seconds: float
    busy_cores: float
    wire_bytes: float
    """Mean bytes of a message at the sink, commands included."""

    @property
    def a_second(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


@dataclass(slots=True)
class MidHalf:
    """A mid, its account, and its mta processes."""

    bench: Bench
    home: Path
    database: Database
    sink: LightSink
    account_id: int
    processes: list[Process] = field(default_factory=list)
    _serial: int = 0

    @classmethod
    def make(
        cls, bench: Bench, sink: LightSink, name: str, *, connections: int = CONNECTIONS, mtas: int = 1
    ) -> MidHalf:
        """Make home, database, account and key; nothing runs yet."""
        home = bench.folder / name
        home.mkdir(mode=0o700)
        url = bench.database(name)
        config = _CONFIG.format(
            name=INSTANCE, url=url, smarthost=sink.address, connections=connections, mtas=mtas
        )  # fmt: skip
        (home / "midsource.toml").write_text(config, encoding="utf-8")
        database = bench.open(INSTANCE, url)
        migrate.upgrade(database, "mid")
        with database.transaction() as conn:
            migrate.describe_instance(conn, INSTANCE, "mid")
            migrate.ensure_partitions(conn, "mid", bench.clock.now())
            account_id, _ = accounts.create(conn, "bench")
            dkim_keys.create(conn, keys.load(home), SIGNED, "s1", "rsa")
        return cls(bench, home, database, sink, account_id)

    def start_mtas(self, count: int) -> None:
        """Start ``count`` mta processes and wait until each reports itself."""
        label = f"mta@{INSTANCE}"
        names = [label] if count == 1 else [f"{label}.{number}" for number in range(1, count + 1)]
        self.processes += [self.bench.process(self.home, name) for name in names]
        with self.database.connection() as conn:
            wait_until(
                lambda: len([row for row in processes.listing(conn) if row.alive]) >= len(self.processes),
                "the mta process", START_SECONDS, *self.processes,
            )  # fmt: skip

    def receive(self, messages: int, domain: str, *, destinations: int = DESTINATIONS) -> int:
        """Take a delivery of the newsletter in, parts and all, and compare; return its number."""
        now = self.bench.clock.now()
        self._serial += 1
        number = delivery_id(now, self._serial)
        deliveries.put_delivery(self.database, self.account_id, spec_of(number, domain), now)
        total, parts = 0, 0
        for raw, hashes in _parts(messages, destinations):
            parts += 1
            reception.put_part(self.database, self.account_id, number, str(parts), raw, rows.content_hash(raw), now)
            total += hashes
        claim = Finalise(messages=messages, row_hash=str(rows.sum_hashes([total])), parts=parts)
        if not reception.finalise(self.database, self.account_id, number, claim, now).agreed:
            raise Failed("the mid does not hold what was handed over", "report it: the benchmark or the mid is wrong")
        return number

    def send(self, number: int, messages: int) -> Sent:
        """Order the delivery to start, and measure until every outcome is durable. Raises Failed where one was not sent."""
        pids = [process.pid for process in self.processes]
        with self.database.connection() as conn:
            conn.execute("vacuum analyze message")  # what came in long before is in order; autovacuum saw to it
            conn.execute("checkpoint") if _may_checkpoint(conn) else None
            server = postmaster(conn)
            before, taken = self._spent(pids, server), self.sink.counted()
            began = time.perf_counter()
            orders.command(self.database, self.account_id, number, "start", self.bench.clock.now())
            wait_until(
                lambda: _sent(conn, number) >= messages, f"the end of {messages} messages", RUN_SECONDS, *self.processes
            )
            seconds = time.perf_counter() - began
            after, now_taken = self._spent(pids, server), self.sink.counted()
        spent = [late - early for early, late in zip(before, after, strict=True)]
        self._check(number, messages, now_taken.messages - taken.messages)
        return Sent(
            messages=messages, seconds=seconds, mta_cpu_seconds=spent[0], database_cpu_seconds=spent[1],
            sink_cpu_seconds=spent[2],
            busy_cores=spent[3] / seconds, wire_bytes=(now_taken.bytes - taken.bytes) / messages,
        )  # fmt: skip

    def _spent(self, pids: Iterable[int], server: int) -> tuple[float, ...]:
        server_seconds, sink_seconds = machine.cpu_seconds(machine.family(server)), machine.cpu_seconds([self.sink.pid])
        return machine.cpu_seconds(pids), server_seconds, sink_seconds, machine.busy_seconds()

    def _check(self, number: int, messages: int, taken: int) -> None:
        """The ledger, counted row by row, says that all were sent; the sink took as many."""
        with self.database.connection() as conn:
            wait_until(lambda: self.state(conn, number) in FINAL, "the end of the delivery", END_SECONDS)
            found = conn.execute(
                "select state, count(*) from message where account_id = %s and delivery_id = %s group by 1",
                (self.account_id, number),
            ).fetchall()
        if dict(found) != {int(MessageState.SENT): messages} or taken != messages:
            raise Failed(f"of {messages} messages the sink took {taken}, the ledger says {dict(found)}", "report it")

    def state(self, conn: Connection, number: int) -> int:
        """Return the delivery's state."""
        return int(
            scalar(conn, "select state from delivery where account_id = %s and id = %s", (self.account_id, number))
        )


def the_mid(bench: Bench) -> MidHalf:
    """Return the sending mid that several rows share, its mta processes started."""

    def make() -> MidHalf:
        mid = MidHalf.make(bench, light_sink(bench), "sending", mtas=bench.mtas)
        mid.start_mtas(bench.mtas)
        return mid

    return bench.once("the sending mid", make)


def spec_of(number: int, domain: str) -> DeliverySpec:
    """Return the newsletter as a delivery from ``news@domain``."""
    content = newsletter.newsletter(tracked=True)
    return DeliverySpec(
        id=number, label=f"newsletter {number}", subject=content.subject, html=content.html, text=content.text,
        brand="La Maison d'Été", from_name=content.from_name, from_address=f"lettre@{domain}", reply_to=content.reply_to,
        headers=content.headers, unsubscribe_url="https://t.exemple.fr/u/{token}", mirror_url="https://t.exemple.fr/m/{token}",
    )  # fmt: skip


def postmaster(conn: Connection) -> int:
    """Return the process number of the PostgreSQL server (on this machine) behind a connection."""
    return machine.parent(int(scalar(conn, "select pg_backend_pid()")))


def _parts(messages: int, destinations: int) -> Iterable[tuple[bytes, int]]:
    """Yield the lines of each part and the sum of its row hashes."""
    for first in range(1, messages + 1, MAX_PART_ROWS):
        lines = []
        for number in range(first, min(first + MAX_PART_ROWS, messages + 1)):
            data = newsletter.person(number)
            data["email"] = f"client{number}@exemple{number % destinations}.fr"
            lines.append(rows.encode_row(PartRow(id=number, to=data["email"], d=data)))
        yield b"".join(lines), sum(map(rows.row_hash, lines))


def _sent(conn: Connection, number: int) -> int:
    """Count what is durably sent: the tallies say it, nothing scans messages."""
    return int(
        scalar(
            conn,
            "select coalesce(sum((e->>4)::int), 0) from feed_batch b cross join lateral jsonb_array_elements(b.tally) e "
            "where b.deliveries @> array[%s::bigint] and (e->>3)::int = %s",
            (number, int(MessageState.SENT)),
        )
    )


def _may_checkpoint(conn: Connection) -> bool:
    return bool(scalar(conn, "select pg_has_role(current_user, 'pg_checkpoint', 'member')"))

"""Both halves with the real link between them: two databases, a mid's web server on a loopback port, an external account.

The mid's web application runs in a thread of the test's process, over real sockets. ``prepared`` writes a delivery as
preparation leaves it (log rows, totals, stored parts), so that tests of the link can begin with thousands of rows at once.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import uvicorn

from midsource.config import Config, InstanceConfig
from midsource.engine.work import Context, Report
from midsource.marketing import accounts
from midsource.mid import accounts as mid_accounts
from midsource.mid import ledger
from midsource.mid.ledger import OutcomeRecord
from midsource.model.clock import Clock
from midsource.model.ids import delivery_id
from midsource.model.message import MessageEvent
from midsource.net.clock import SystemClock
from midsource.store import migrate
from midsource.store.database import Database, scalar
from midsource.web.app import create_app
from midsource.wire import rows as wire_rows
from midsource.wire.schema import PartRow

DOMAINS = ("gmail.example", "orange.example", "sapo.example")


def _no_beat() -> None:
    """Hold the lease: nobody else wants it."""


class WebThread:
    """An ASGI application on a loopback port of its own, in a thread."""

    def __init__(self, app: Any) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", lifespan="on", access_log=False, timeout_graceful_shutdown=2)
        )
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def start(self) -> None:
        """Serve; connections made before it is ready wait in the socket."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()


@dataclass(slots=True)
class LinkedHalves:
    """A marketing instance and its mid. ``journal`` holds every line said by slices run with ``context``."""

    marketing: Database
    mid: Database
    mid_account: int
    home: Path
    port: int
    key: str
    clock: Clock = field(default_factory=SystemClock)
    journal: list[tuple[str, str]] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)
    beat: Callable[[], None] = _no_beat

    def context(self, subject: int = 0, began_at: datetime | None = None) -> Context:
        """Give a slice what it may use; ``began_at``: when the first slice of its run began."""
        return Context(
            database=self.marketing,
            clock=self.clock,
            home=self.home,
            instance="marketing",
            subject=subject,
            say=lambda level, line: self.journal.append((level, line)),
            beat=self.beat,
            progress=self.shown.append,
            began_at=began_at,
        )

    def link_to(self, url: str, key: str = "") -> None:
        """Let the external account go to another address (a proxy) or use another key."""
        with self.marketing.transaction() as conn:
            accounts.add(conn, self.home, url=url, key=key or self.key, now=self.clock.now())

    def run(self, body: Callable[[Context], Report], subject: int = 0, slices: int = 100) -> Report:
        """Run slices until nothing is left, as the engine would; a pause is cut to a twentieth of a second at most."""
        with self.marketing.connection() as conn:
            began_at = scalar(conn, "select clock_timestamp()")
        for _ in range(slices):
            report = body(self.context(subject, began_at))
            if report.more_after_seconds is None:
                return report
            if report.more_after_seconds:
                threading.Event().wait(min(0.05, report.more_after_seconds))
                with self.marketing.connection() as conn:  # as if the pause were over
                    conn.execute("update upload_part set not_before = null where not_before is not null")
                    conn.execute("update failed_try set not_before = clock_timestamp() where not_before is not null")
        raise AssertionError(f"not done after {slices} slices: {self.journal[-5:]}")

    def lines(self, words: str) -> list[str]:
        """Return the journal's lines that hold ``words``."""
        return [line for _, line in self.journal if words in line]

    def prepared(self, people: int, *, part_rows: int = 500, serial: int = 1, excluded: int = 0) -> int:
        """Make a delivery in state 25 with ``people`` messages to hand over and ``excluded`` ignored ones."""
        number = delivery_id(self.clock.now(), serial)
        with self.marketing.transaction() as conn:
            conn.execute(
                "insert into brand (name, from_address, sender_domains, unsubscribe_url) "
                "values ('shop', 'news@shop.test', '{shop.test}', 'https://shop.test/u/{token}') on conflict do nothing"
            )
            conn.execute(
                "insert into delivery (id, label, state, brand, account, subject, html, text, from_name, from_address, "
                "validity_seconds, retry_count, retry_period_seconds, uncertain_policy, targeted, excluded, to_deliver) "
                "values (%s, %s, 25, 'shop', %s, 'Hello', '<p>{{ recipient.first_name }}</p>', 'Hello', 'Shop', "
                "'news@shop.test', 432000, 5, 3600, 'hold', %s, %s, %s)",
                (number, f"delivery {serial}", accounts.DEFAULT_NAME, people + excluded, excluded, people),
            )
            conn.execute(
                "insert into broad_log (delivery_id, id, recipient_id, email, domain, state, reason, event_at) "
                "select %s, n, n, 'person' || n || '@' || d.domain, d.domain, case when n > %s then 0 else 6 end, "
                "case when n > %s then 10 else 0 end, now() from generate_series(1, %s) n, "
                "lateral (select (%s::text[])[1 + n %% 3] as domain) d",
                (number, people, people, people + excluded, list(DOMAINS)),
            )
            conn.execute(
                "insert into broad_log_total select delivery_id, domain, state, reason, count(*) from broad_log "
                "where delivery_id = %s group by 1, 2, 3, 4",
                (number,),
            )
            for position, first in enumerate(range(1, people + 1, part_rows), 1):
                self._store_part(conn, number, position, range(first, min(first + part_rows, people + 1)))
        return number

    @staticmethod
    def _store_part(conn: Any, number: int, position: int, ids: range) -> None:
        lines = [
            wire_rows.encode_row(PartRow(id=n, to=f"person{n}@{DOMAINS[n % 3]}", d={"first_name": f"Person {n}"}))
            for n in ids
        ]
        raw = b"".join(lines)
        body = wire_rows.compress(raw)
        conn.execute(
            "insert into upload_part (delivery_id, part, position, first_id, last_id, rows, bytes, content_hash, row_hash, body)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *(number, str(position), position, ids[0], ids[-1], len(ids), len(body), wire_rows.content_hash(raw)),
                *(wire_rows.sum_hashes(map(wire_rows.row_hash, lines)), body),
            ),
        )

    def sent(self, number: int, ids: range, event: MessageEvent = MessageEvent.ACCEPTED) -> None:
        """Let the mid record an outcome for messages, in one transaction, as the mta would."""
        now = self.clock.now()
        with self.mid.transaction() as conn:
            records = [
                OutcomeRecord(number, n, event, now, reply="250 2.0.0 ok", message_id=f"m{n}@shop.test") for n in ids
            ]
            ledger.record_outcomes(conn, self.mid_account, records, now)

    def same_on_both_sides(self, number: int) -> bool:
        """Compare every message of a delivery on both sides: state and revision."""
        statement = "select id, state from {} where delivery_id = %s and state <> 0 order by id"
        with self.marketing.connection() as ours, self.mid.connection() as theirs:
            here = ours.execute(statement.format("broad_log"), (number,)).fetchall()
            there = theirs.execute(statement.format("message"), (number,)).fetchall()
        return here == there

    def totals_agree(self, number: int) -> bool:
        """Recount the delivery log and compare with its totals."""
        with self.marketing.connection() as conn:
            return bool(
                scalar(
                    conn,
                    "select not exists ((select domain, state, reason, count(*) from broad_log where delivery_id = %(id)s "
                    "group by 1, 2, 3 except select domain, state, reason, n from broad_log_total where delivery_id = %(id)s) "
                    "union all (select domain, state, reason, n from broad_log_total where delivery_id = %(id)s and n <> 0 "
                    "except select domain, state, reason, count(*) from broad_log where delivery_id = %(id)s group by 1, 2, 3))",
                    {"id": number},
                )
            )


def templates(make_database: Callable[..., str]) -> tuple[str, str]:
    """Migrate a marketing and a mid database once; tests copy them."""
    clock = SystemClock()
    urls = []
    for role in ("marketing", "mid"):
        urls.append(make_database())
        with Database(role, urls[-1], application="tests") as database:
            migrate.upgrade(database, role)
            with database.transaction() as conn:
                migrate.describe_instance(conn, role, role)
                migrate.ensure_partitions(conn, role, clock.now())
    return urls[0], urls[1]


@contextmanager
def linked(make_database: Callable[..., str], copied: tuple[str, str], home: Path) -> Iterator[LinkedHalves]:
    """Give both halves, linked by an external account, the mid's web server running."""
    clock = SystemClock()
    urls = [make_database(template) for template in copied]
    with (
        Database("marketing", urls[0], application="tests", max_connections=10) as marketing,
        Database("mid", urls[1], application="tests", max_connections=10) as mid,
    ):
        with mid.transaction() as conn:
            account, key = mid_accounts.create(conn, "marketing")
        web = WebThread(mid_application(mid, home, clock))
        web.start()
        try:
            halves = LinkedHalves(marketing, mid, account, home, web.port, key, clock)
            halves.link_to(f"http://127.0.0.1:{web.port}")
            yield halves
        finally:
            web.stop()


def mid_application(mid: Database, home: Path, clock: Clock) -> Any:
    """Compose the mid's web application as its web process does."""
    return create_app(Config(home=home / "mid"), InstanceConfig(name="mid", role="mid", port=1), mid, clock)

"""Instances for the doctor to look at: migrated once a role, copied for each test, with all their processes alive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from midsource.config import Config, InstanceConfig
from midsource.doctor import book, look
from midsource.doctor.checks import CHECKS
from midsource.doctor.facts import Facts
from midsource.engine.leader import LEADER_LOCK
from midsource.mid import accounts as submitting
from midsource.model.finding import Finding, Standing
from midsource.net.clock import SystemClock
from midsource.store import migrate
from midsource.store.database import Connection, Database
from midsource.testing.link import LinkedHalves, linked, templates

CLOCK = SystemClock()
KINDS = {"marketing": ("web", "worker"), "mid": ("web", "worker", "mta")}


@dataclass(slots=True)
class Patient:
    """One instance as tests stage it: its database, its configuration, and what the doctor sees of it."""

    database: Database
    config: Config
    instance: InstanceConfig
    leader: Any
    mids: dict[str, Any] = field(default_factory=dict)

    @property
    def role(self) -> str:
        return self.instance.role

    def execute(self, statement: str, *values: object) -> Any:
        with self.database.transaction() as conn:
            done = conn.execute(statement, values)
            return done.fetchall() if done.description else done.rowcount

    def facts(self) -> Facts:
        return Facts(self.config, self.instance, CLOCK, self.mids)

    def see(self, only: str, now: datetime | None = None) -> list[Finding]:
        """Run the checks called ``only`` as a look does, without asking mids."""
        found: list[Finding] = []
        for check in look.named(only):
            if self.role in check.roles:
                with self.database.transaction(statement_seconds=check.bound_seconds) as conn:
                    conn.execute("set transaction read only")
                    facts = replace(self.facts(), before=tuple(found))
                    seen = list(check.look(conn, facts, now or CLOCK.now()))
                found += [Finding.of(check.name, check.answers, one) for one in seen]
        return found

    def look(self, only: str = "") -> look.Looked:
        """Do a whole look, or one of the checks called ``only``, and write it down."""
        checks = [check for check in (look.named(only) if only else CHECKS) if self.role in check.roles]
        looked = look.at(self.config, self.instance, self.database, CLOCK, checks)
        with self.database.transaction() as conn:
            book.record(conn, looked, CLOCK.now())
        return looked

    def standing(self) -> Sequence[Standing]:
        with self.database.connection() as conn:
            return book.standing(conn)


@pytest.fixture(scope="session")
def link_templates(make_database: Callable[..., str]) -> tuple[str, str]:
    """Migrate both roles once."""
    return templates(make_database)


@pytest.fixture
def marketing(make_database: Callable[..., str], link_templates: tuple[str, str], tmp_path: Path) -> Iterator[Patient]:
    """Give a marketing instance with the account mid1, a brand, and everything alive."""
    with Database("marketing", make_database(link_templates[0]), application="tests", max_connections=6) as database:
        patient = _patient(database, "marketing", tmp_path)
        with database.transaction() as conn:
            conn.execute(
                "insert into external_account (name, label, url, key_id, secret, last_hello_at) values ('mid1', 'Mid 1', "
                "'http://127.0.0.1:1', 'k', 's', now())"
            )
            conn.execute(
                "insert into brand (name, from_address, sender_domains, unsubscribe_url) "
                "values ('shop', 'news@shop.test', '{shop.test}', 'https://shop.test/u/{token}')"
            )
            _point(conn, "mid1")
        yield patient
        patient.leader.close()


@pytest.fixture
def mid(make_database: Callable[..., str], link_templates: tuple[str, str], tmp_path: Path) -> Iterator[Patient]:
    """Give a mid with the account default, and everything alive."""
    with Database("mid1", make_database(link_templates[1]), application="tests", max_connections=6) as database:
        patient = _patient(database, "mid", tmp_path)
        with database.transaction() as conn:
            submitting.create(conn, "default")
        yield patient
        patient.leader.close()


@pytest.fixture
def halves(
    make_database: Callable[..., str], link_templates: tuple[str, str], tmp_path: Path
) -> Iterator[LinkedHalves]:
    """Give an empty marketing instance with one external account, and its mid behind a real web server."""
    with linked(make_database, link_templates, tmp_path) as both:
        yield both


def _patient(database: Database, role: str, home: Path) -> Patient:
    import psycopg

    instance = InstanceConfig("marketing" if role == "marketing" else "mid1", role, database.dsn, port=1)  # type: ignore[arg-type]
    leader = psycopg.connect(database.dsn, autocommit=True)
    leader.execute("select pg_advisory_lock(%s)", (LEADER_LOCK,))
    with database.transaction() as conn:
        conn.execute("update instance set name = %s", (instance.name,))
        migrate.ensure_partitions(conn, role, CLOCK.now())
        for kind in KINDS[role]:
            conn.execute(
                "insert into process (name, kind, host, pid, executor, started_at) values (%s, %s, 'here', 1, %s, now() - interval '1 h')",
                (f"{kind}@{instance.name}", kind, f"{kind}-1"),
            )
    return Patient(database, Config(home, instances=(instance,)), instance, leader)


def _point(conn: Connection, account: str) -> None:
    for stream, option in (("deliveries", "LastDelivery"), ("logs", "LastBroadLog")):
        conn.execute(
            "with p as (insert into pointer (account, stream, lane, reached_at, shown) values (%s, %s, 'backlog', now(), now()::text) returning shown) "
            "insert into option (name, value, modified_by) select %s, shown, 'pointer' from p",
            (account, stream, f"NmsMidSourcing_{option}_{account}"),
        )


def delivery(patient: Patient, serial: int = 1, **columns: object) -> int:
    """Insert a delivery of this month on the marketing side with ``columns`` as given; return its id."""
    from midsource.model.ids import delivery_id

    number = delivery_id(CLOCK.now(), serial)
    values: dict[str, object] = {
        "id": number, "label": f"delivery {serial}", "state": 0, "brand": "shop", "account": "mid1", "subject": "", "html": "", "text": "",
        "from_name": "", "from_address": "news@shop.test", "validity_seconds": 3600, "retry_count": 1, "retry_period_seconds": 60,
        "uncertain_policy": "hold", **columns,
    }  # fmt: skip
    marks = ", ".join(["%s"] * len(values))
    patient.execute(f"insert into delivery ({', '.join(values)}) values ({marks})", *values.values())
    return number

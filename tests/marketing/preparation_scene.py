"""A database with people, one delivery to prepare, and everything its preparation wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midsource.engine.work import Context, Report
from midsource.marketing import deliveries, importing, options, parts, preparation
from midsource.marketing.preparation import prepare
from midsource.marketing.sample import SampleFacts, write_sample, write_sample_delivery
from midsource.store.database import Database
from midsource.testing.clock import ManualClock

PEOPLE = 600


class Work:
    """A database with sample people, and one delivery to prepare."""

    def __init__(self, database: Database, clock: ManualClock, folder: Path) -> None:
        self.database = database
        self.clock = clock
        self.folder = folder
        self.said: list[str] = []

    def bring(self, content: str) -> None:
        path = self.folder / "people.csv"
        path.write_text(content, encoding="utf-8")
        importing.import_recipients(self.database, path, home=self.folder, clock=self.clock, create_fields=True)

    def bring_sample(self, people: int = PEOPLE) -> SampleFacts:
        facts = write_sample(self.folder / "people.csv", people, seed=11)
        importing.import_recipients(
            self.database,
            self.folder / "people.csv",
            home=self.folder,
            clock=self.clock,
            list_name="all",
            create_fields=True,
        )
        return facts

    def create(self, document: str) -> int:
        path = self.folder / "d.toml"
        path.write_text(document, encoding="utf-8")
        with self.database.transaction() as conn:
            return deliveries.create_from_toml(conn, path, self.clock)

    def create_text(self, text: str, more: str = "") -> int:
        (self.folder / "body.txt").write_text(f"{text}\n{{{{ links.unsubscribe }}}}", encoding="utf-8")
        return self.create(f'label = "A"\nsubject = "News"\ntext = "body.txt"\n{more}')

    def create_sample(self) -> int:
        path = write_sample_delivery(self.folder / "sample", account="mid1", list_name="all")
        with self.database.transaction() as conn:
            return deliveries.create_from_toml(conn, path, self.clock)

    def context(self, delivery_id: int, at_each_step: Callable[[], None] = lambda: None) -> Context:
        def say(_level: str, line: str) -> None:
            self.said.append(line)
            at_each_step()

        return Context(
            self.database, self.clock, self.folder, "marketing", delivery_id,
            say=say, beat=at_each_step, progress=lambda _values: at_each_step(),
        )  # fmt: skip

    def prepare(self, delivery_id: int, at_each_step: Callable[[], None] = lambda: None) -> Report:
        """Run slices until the job says it is finished."""
        context = self.context(delivery_id, at_each_step)
        while (report := prepare(context)).more_after_seconds is not None:
            pass
        return report

    def get(self, delivery_id: int) -> deliveries.Delivery:
        with self.database.connection() as conn:
            return deliveries.get(conn, delivery_id)

    def rows(self, statement: Any, *params: Any) -> list[tuple[Any, ...]]:
        with self.database.connection() as conn:
            return conn.execute(statement, params).fetchall()

    def result(self, delivery_id: int) -> list[Any]:
        """Return everything a preparation wrote, but for times."""
        columns = "part, position, first_id, last_id, rows, content_hash, row_hash, state, attempts"
        delivery = self.get(delivery_id)
        return [
            (
                delivery.state,
                delivery.targeted,
                delivery.excluded,
                delivery.to_deliver,
                delivery.findings,
                delivery.error,
            ),
            [(phase["phase"], phase["rows"]) for phase in delivery.phases],
            self.rows(f"select {columns} from upload_part where delivery_id = %s order by position", delivery_id),
            self.rows(
                "select id, recipient_id, email, domain, state, reason from broad_log where delivery_id = %s order by id",
                delivery_id,
            ),
            self.rows(
                "select domain, state, reason, n from broad_log_total where delivery_id = %s order by 1, 2, 3",
                delivery_id,
            ),
        ]


def small(monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    """Make pages and parts small, so that a few hundred people take many steps."""
    monkeypatch.setattr(parts, "PAGE_ROWS", 130)
    monkeypatch.setattr(preparation, "PARTS_AT_ONCE", 2)
    with work.database.transaction() as conn:
        options.set_value(conn, "NmsBroadcast_MidAnalyzeBatchSize", "50", by="Alice", now=work.clock.now())

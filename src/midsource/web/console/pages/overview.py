"""Queries of the status page and of the list of deliveries. Nothing here reads a delivery's content or a log row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from psycopg import sql
from psycopg.rows import class_row

from midsource.doctor import book
from midsource.marketing import accounts
from midsource.marketing.accounts import ExternalAccount
from midsource.model.delivery import DeliveryState
from midsource.store import processes
from midsource.store.database import Connection
from midsource.store.processes import ProcessRow
from midsource.web.console.pages import workflow_view
from midsource.web.console.pages.figures import Figures, figures_of
from midsource.web.console.pages.workflow_view import Line

LATEST = 5
PAGE_ROWS = 25
"""Deliveries of one page of the list."""


@dataclass(frozen=True, slots=True)
class DeliveryLine:
    """A delivery as lists show it."""

    id: int
    label: str
    state: int
    account: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    to_deliver: int | None
    handed_over: int | None
    figures: dict[str, int]
    figures_at: datetime | None
    ordered: str | None
    order_confirmed_at: datetime | None
    error: str

    @property
    def counted(self) -> Figures:
        """Its figures."""
        return figures_of(
            state=self.state,
            to_deliver=self.to_deliver,
            handed_over=self.handed_over,
            figures=self.figures,
            as_of=self.figures_at,
        )

    @property
    def is_final(self) -> bool:
        """Whether nothing changes it any more."""
        return DeliveryState(self.state).is_final

    @property
    def is_unconfirmed(self) -> bool:
        """Whether the last order has not reached the mid yet."""
        return self.ordered is not None and self.order_confirmed_at is None


@dataclass(frozen=True, slots=True)
class Overview:
    """What the status page shows of the database."""

    processes: Sequence[ProcessRow]
    workflows: Sequence[Line]
    accounts: Sequence[ExternalAccount]
    deliveries: Sequence[DeliveryLine]
    findings: int
    """How many of the doctor's findings that need somebody are open."""

    @property
    def has_worker(self) -> bool:
        """Whether a worker lives."""
        return any(row.kind == "worker" and row.alive for row in self.processes)


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Some deliveries, newest first. ``older`` is the id that the next page goes on below; None: there is none older."""

    deliveries: Sequence[DeliveryLine]
    older: int | None


_COLUMNS = sql.SQL(", ").join(sql.Identifier(field.name) for field in fields(DeliveryLine))


def overview(conn: Connection, now: datetime) -> Overview:
    """Read the state of this instance."""
    return Overview(
        processes.listing(conn),
        workflow_view.board(conn, "marketing", now).lines,
        accounts.list_accounts(conn),
        page(conn, None, LATEST).deliveries,
        book.needing_somebody(conn, now),
    )


def page(conn: Connection, before: int | None, limit: int = PAGE_ROWS) -> DeliveryPage:
    """Return the newest deliveries, or those before id ``before``."""
    statement = sql.SQL(
        "select {} from delivery where %(before)s::bigint is null or id < %(before)s order by id desc limit %(limit)s"
    ).format(_COLUMNS)
    with conn.cursor(row_factory=class_row(DeliveryLine)) as cursor:
        found = cursor.execute(statement, {"before": before, "limit": limit + 1}).fetchall()
    return DeliveryPage(found[:limit], found[limit - 1].id if len(found) > limit else None)

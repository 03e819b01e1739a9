"""Queries of one delivery's pages: its row without the content, its totals, domains, waits, parts and work.

Counts come from ``broad_log_total``. Rows of the log: marketing/log_search.py. What happened when: delivery_trail.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.rows import class_row

from midsource.engine import jobs
from midsource.engine.jobs import Job
from midsource.marketing import reconcile_reports, samples, statistics, waiting
from midsource.marketing.reconcile_reports import Report
from midsource.marketing.statistics import Table
from midsource.marketing.waiting import Group, Wait
from midsource.model.delivery import DeliveryState
from midsource.model.errors import NotFound
from midsource.model.message import MessageState
from midsource.policy import pace
from midsource.policy.pace import Forecast
from midsource.store import processes
from midsource.store.database import Connection
from midsource.web.console.pages.overview import DeliveryLine

DOMAINS = 10
DOMAIN_CANDIDATES = 100
"""Totals (of one domain, state and reason) whose domains may be among the largest: ten for each place."""
JOBS = 6


@dataclass(frozen=True, slots=True)
class DeliveryDetail(DeliveryLine):
    """A delivery as its pages show it."""

    brand: str
    template: str | None
    subject: str
    from_name: str
    from_address: str
    target_list: str | None
    target_expression: str
    contact_at: datetime | None
    validity_seconds: int
    retry_count: int
    retry_period_seconds: int
    uncertain_policy: str
    ordered_at: datetime | None
    confirmed_at: datetime | None
    targeted: int | None
    excluded: int | None
    refused: int | None
    findings: list[dict[str, str]]
    phases: list[dict[str, Any]]
    version: int
    proof_of: int | None
    proof_number: int
    log_dropped_at: datetime | None

    @property
    def seconds_sent(self) -> float | None:
        """How long it has been sending, or sent; None before it began."""
        if self.started_at is None:
            return None
        end = self.finished_at or self.figures_at
        return None if end is None else max(0.0, (end - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True)
class DomainRow:
    """The messages of one recipient domain, excluded ones not counted."""

    domain: str
    messages: int
    sent: int
    failed: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Totals:
    """The delivery log, counted."""

    states: Mapping[MessageState, int]
    excluded: Sequence[tuple[int, int]]
    failed: Sequence[tuple[int, int]]

    @property
    def known(self) -> int:
        """Messages whose result the log knows."""
        return sum(self.states.get(state, 0) for state in samples.DONE)


@dataclass(frozen=True, slots=True)
class Account:
    """The mid it goes to: when it last answered, and what is wrong with the link."""

    label: str
    url: str
    heard_at: datetime | None
    problem: str


@dataclass(frozen=True, slots=True)
class DeliveryStory:
    """Everything on the summary. ``parts``: (taken by the mid, all); ``groups``: what was tried and waits.

    ``compared``: the last comparison with the mid; ``statistics``: by domain, as the mid counts them.
    """

    row: DeliveryDetail
    totals: Totals
    domains: Sequence[DomainRow]
    parts: tuple[int, int]
    jobs: Sequence[Job]
    account: Account
    waits: Sequence[Wait]
    groups: Sequence[Group]
    forecast: Forecast
    has_worker: bool
    compared: Report | None
    statistics: Table

    @property
    def waits_for_worker(self) -> bool:
        """Whether something is asked for that only a worker does, and none lives."""
        asked = self.row.is_unconfirmed or any(job.outcome is None for job in self.jobs)
        return asked and not self.has_worker


_COLUMNS = sql.SQL(", ").join(sql.Identifier(field.name) for field in fields(DeliveryDetail))


def story(conn: Connection, delivery_id: int, now: datetime) -> DeliveryStory:
    """Read the summary of one delivery; raises NotFound."""
    row = detail(conn, delivery_id)
    account = account_of(conn, row.account)
    parts = waiting.parts_of(conn, [delivery_id]).get(delivery_id, (0, 0))
    standing = samples.standing_of(
        state=row.state, figures=row.figures, figures_at=row.figures_at, heard_at=account.heard_at,
        retry_seconds=row.retry_period_seconds, earlier=samples.earlier(conn, [delivery_id]).get(delivery_id),
    )  # fmt: skip
    return DeliveryStory(
        row,
        _totals(conn, delivery_id),
        _domains(conn, delivery_id),
        parts,
        jobs.of_subject(conn, delivery_id, JOBS),
        account,
        waiting.causes(row, parts, now),
        waiting.groups(conn, row, (MessageState.DEFERRED, MessageState.UNCERTAIN)),
        pace.forecast(standing, now),
        processes.any_alive(conn, "worker"),
        next(iter(reconcile_reports.latest(conn, delivery_id, 1)), None),
        statistics.read(conn, delivery_id),
    )


def detail(conn: Connection, delivery_id: int) -> DeliveryDetail:
    """Read one delivery's row; raises NotFound."""
    with conn.cursor(row_factory=class_row(DeliveryDetail)) as cursor:
        found = cursor.execute(
            sql.SQL("select {} from delivery where id = %s").format(_COLUMNS), (delivery_id,)
        ).fetchone()
    if found is None:
        raise NotFound(f"there is no delivery {delivery_id}", "see the list of deliveries")
    return found


def account_of(conn: Connection, name: str) -> Account:
    """Return the external account a delivery goes to."""
    row = conn.execute(
        "select label, url, last_hello_at, last_problem from external_account where name = %s", (name,)
    ).fetchone()
    return Account(*row) if row else Account(name, "", None, "")


def has_results(row: DeliveryDetail) -> bool:
    """Tell whether the delivery has been sent in part or as a whole, so that figures of results are of interest."""
    return DeliveryState(row.state) >= DeliveryState.START_PENDING or row.figures_at is not None


def _totals(conn: Connection, delivery_id: int) -> Totals:
    rows = conn.execute(
        "select state, reason, sum(n)::bigint from broad_log_total where delivery_id = %s "
        "group by state, reason having sum(n) <> 0 order by 3 desc, reason",
        (delivery_id,),
    ).fetchall()
    states: dict[MessageState, int] = {}
    for state, _, n in rows:
        states[MessageState(state)] = states.get(MessageState(state), 0) + n
    return Totals(states, _by_reason(rows, MessageState.IGNORED), _by_reason(rows, MessageState.FAILED))


def _by_reason(rows: Sequence[tuple[int, int, int]], wanted: MessageState) -> list[tuple[int, int]]:
    return [(reason, n) for state, reason, n in rows if state == wanted]


def _domains(conn: Connection, delivery_id: int) -> list[DomainRow]:
    """Return the largest domains: only those of the largest totals are added up, a delivery may have 50 000."""
    rows = conn.execute(
        """
        with candidate as materialized (
            select domain from broad_log_total where delivery_id = %(delivery)s and state <> 0
             order by n desc limit %(candidates)s
        )
        select domain, sum(n)::bigint, coalesce(sum(n) filter (where state = 1), 0)::bigint,
               coalesce(sum(n) filter (where state = 2), 0)::bigint,
               coalesce(sum(n) filter (where state in (6, 61, 62)), 0)::bigint
          from broad_log_total
         where delivery_id = %(delivery)s and domain = any(array(select domain from candidate)) and state <> 0
         group by domain having sum(n) > 0 order by 2 desc, domain limit %(shown)s
        """,
        {"delivery": delivery_id, "candidates": DOMAIN_CANDIDATES, "shown": DOMAINS},
    ).fetchall()
    return [DomainRow(*row) for row in rows]

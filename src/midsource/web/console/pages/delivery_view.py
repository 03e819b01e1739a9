"""Queries of the page of one delivery: its row without the content, its totals, parts, work and failures of the link.

Counts come from ``broad_log_total``, one statement for states and reasons and one for domains. Log rows: ``log_view``.
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
from midsource.model.errors import NotFound
from midsource.model.message import MessageState, Reason
from midsource.store.database import Connection, scalar
from midsource.web.console.pages.log_view import reason_of
from midsource.web.console.pages.overview import DeliveryLine

DOMAINS = 10
DOMAIN_CANDIDATES = 100
"""Totals (of one domain, state and reason) whose domains may be among the largest: ten for each place."""
JOBS = 6
LINK_EVENTS = 50


@dataclass(frozen=True, slots=True)
class DeliveryDetail(DeliveryLine):
    """A delivery as its page shows it."""

    subject: str
    from_name: str
    from_address: str
    target_list: str | None
    target_expression: str
    contact_at: datetime | None
    validity_seconds: int
    retry_count: int
    retry_period_seconds: int
    ordered_at: datetime | None
    targeted: int | None
    excluded: int | None
    findings: list[dict[str, str]]
    phases: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class DomainRow:
    """The messages of one recipient domain, excluded ones not counted."""

    domain: str
    messages: int
    sent: int
    failed: int
    waiting: int


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """One call to the mid that failed."""

    at: datetime
    line: str


@dataclass(frozen=True, slots=True)
class Totals:
    """The delivery log, counted."""

    states: Mapping[MessageState, int]
    excluded: Sequence[tuple[Reason, int]]
    failed: Sequence[tuple[Reason, int]]


@dataclass(frozen=True, slots=True)
class DeliveryStory:
    """Everything on the page but the log rows. ``parts``: (acknowledged, all)."""

    row: DeliveryDetail
    totals: Totals
    domains: Sequence[DomainRow]
    parts: tuple[int, int]
    jobs: Sequence[Job]
    link_events: Sequence[LinkEvent]
    account_problem: str


_COLUMNS = sql.SQL(", ").join(sql.Identifier(field.name) for field in fields(DeliveryDetail))


def story(conn: Connection, delivery_id: int) -> DeliveryStory:
    """Read one delivery; raises NotFound."""
    row = _row(conn, delivery_id)
    problem = scalar(conn, "select last_problem from external_account where name = %s", (row.account,))
    return DeliveryStory(
        row,
        _totals(conn, delivery_id),
        _domains(conn, delivery_id),
        _parts(conn, delivery_id),
        jobs.of_subject(conn, delivery_id, JOBS),
        _link_events(conn, delivery_id),
        problem or "",
    )


def _row(conn: Connection, delivery_id: int) -> DeliveryDetail:
    with conn.cursor(row_factory=class_row(DeliveryDetail)) as cursor:
        found = cursor.execute(
            sql.SQL("select {} from delivery where id = %s").format(_COLUMNS), (delivery_id,)
        ).fetchone()
    if found is None:
        raise NotFound(f"there is no delivery {delivery_id}", "see the list of deliveries")
    return found


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


def _by_reason(rows: Sequence[tuple[int, int, int]], wanted: MessageState) -> list[tuple[Reason, int]]:
    return [(reason_of(reason), n) for state, reason, n in rows if state == wanted]


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


def _parts(conn: Connection, delivery_id: int) -> tuple[int, int]:
    row = conn.execute(
        "select count(*) filter (where state = 'acknowledged'), count(*) from upload_part "
        "where delivery_id = %s and state <> 'split'",
        (delivery_id,),
    ).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def _link_events(conn: Connection, delivery_id: int) -> list[LinkEvent]:
    rows = conn.execute(
        "select at, line from link_event where delivery_id = %s order by id desc limit %s", (delivery_id, LINK_EVENTS)
    ).fetchall()
    return [LinkEvent(*row) for row in rows]

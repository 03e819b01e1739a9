"""What happened to a delivery, newest first: orders of people, phases of its work, failures of the link, in one time line.

Each source is read backwards from a moment by its index, at most TRAIL_ROWS + 1 rows of it, then they are merged; a page
that is full says from which moment the next one goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from midsource.engine.jobs import Job
from midsource.store.database import Connection
from midsource.web.console.pages.delivery_view import DeliveryDetail

TRAIL_ROWS = 100
OPEN_PARTS = 20
Kind = Literal["audit", "phase", "link", "job", "moment"]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. ``name``: a verb, phase, job or moment; ``line``: the product's own sentence, if it has one."""

    at: datetime
    kind: Kind
    name: str
    line: str = ""
    who: str = ""
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenPart:
    """A part that the mid has not taken yet."""

    part: str
    rows: int
    attempts: int
    not_before: datetime | None


@dataclass(frozen=True, slots=True)
class Trail:
    """Events, newest first; ``before``: where the next page goes on, None at the end."""

    events: Sequence[Event]
    before: datetime | None
    open_parts: Sequence[OpenPart]


def trail(conn: Connection, row: DeliveryDetail, before: datetime | None) -> Trail:
    """Return the events of a delivery earlier than ``before``."""
    events = [*_audit(conn, row.id, before), *_link(conn, row.id, before), *_jobs(conn, row.id, before)]
    events += [event for event in _own(row) if before is None or event.at < before]
    events.sort(key=lambda event: event.at, reverse=True)
    more = len(events) > TRAIL_ROWS
    shown = events[:TRAIL_ROWS]
    return Trail(shown, shown[-1].at if more else None, _open_parts(conn, row.id))


def _audit(conn: Connection, delivery_id: int, before: datetime | None) -> list[Event]:
    rows = conn.execute(
        "select at, verb, who, via, detail from audit where subject = %s and (%s::timestamptz is null or at < %s) "
        "order by id desc limit %s",
        (str(delivery_id), before, before, TRAIL_ROWS + 1),
        prepare=False,
    ).fetchall()
    return [
        Event(at, "audit", verb, who=f"{who} ({via})", values=detail)
        for at, verb, who, via, detail in rows
        if verb.startswith("delivery.")
    ]


def _link(conn: Connection, delivery_id: int, before: datetime | None) -> list[Event]:
    rows = conn.execute(
        "select at, method, line from link_event where delivery_id = %s and (%s::timestamptz is null or at < %s) "
        "order by id desc limit %s",
        (delivery_id, before, before, TRAIL_ROWS + 1),
        prepare=False,
    ).fetchall()
    return [Event(at, "link", method, line) for at, method, line in rows]


def _jobs(conn: Connection, delivery_id: int, before: datetime | None) -> list[Event]:
    rows = conn.execute(
        "select id, kind, subject, asked_at, started_at, finished_at, outcome, error, progress, slices from job "
        "where subject = %s and (%s::timestamptz is null or asked_at < %s) order by asked_at desc limit %s",
        (delivery_id, before, before, TRAIL_ROWS + 1),
        prepare=False,
    ).fetchall()
    found = []
    for job in (Job(*row) for row in rows):
        found.append(Event(job.asked_at, "job", job.kind, values={"outcome": None}))
        if job.finished_at is not None and (before is None or job.finished_at < before):
            found.append(Event(job.finished_at, "job", job.kind, job.error, values={"outcome": job.outcome}))
    return found


def _own(row: DeliveryDetail) -> list[Event]:
    moments = {
        "created": row.created_at, "confirmed": row.confirmed_at, "started": row.started_at, "finished": row.finished_at,
    }  # fmt: skip
    found = [Event(at, "moment", name) for name, at in moments.items() if at is not None]
    for phase in row.phases:
        at = datetime.fromisoformat(phase["started_at"])
        values = {"rows": phase.get("rows", 0), "seconds": phase["seconds"]}
        found.append(Event(at, "phase", phase["phase"], values=values))
    return found


def _open_parts(conn: Connection, delivery_id: int) -> list[OpenPart]:
    rows = conn.execute(
        "select part, rows, attempts, not_before from upload_part where delivery_id = %s and state = 'stored' "
        "order by position limit %s",
        (delivery_id, OPEN_PARTS),
    ).fetchall()
    return [OpenPart(*row) for row in rows]

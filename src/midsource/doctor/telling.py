"""From the outbox to supervisors: spread what changed over those who hear of it, and tell what is due.

Order of events: a change wrote its `notification` in its own transaction · ``spread`` makes a `telling` for each supervisor that
hears of it, due at once or with the digest after its quiet hours · ``deliver`` carries all that is due for one supervisor in one
message, then marks it. A crash between the two tells it once more: each change has its id, and a webhook's receiver can see that.

What was over before anybody was told is told to nobody: a flag *failed* that was set and cleared, a finding that opened and closed.
What may be just passing waits: a flag for SETTLES, a finding that had a clean look for its next.

*When it fails*: a supervisor that cannot be told, whatever the reason, stops no other; it is tried again after 5 minutes, 10, … 6 hours, given up
for a change after a day, and is itself a finding after two failures, which the others are told.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import structlog

from midsource.doctor import letters, supervisors
from midsource.doctor.channels import Carrier
from midsource.doctor.letters import News
from midsource.doctor.supervisors import Supervisor
from midsource.model.errors import MidsourceError, first_line
from midsource.model.finding import Severity
from midsource.policy import telling as policy
from midsource.store.database import Connection, Database

SPREAD_ROWS = 500
SETTLES = timedelta(minutes=1)
"""A workflow whose run failed has another after two seconds; what still stands after a minute is told."""
WAITS = timedelta(minutes=20)
"""Longest wait of a finding for a second clean look: a check that cannot look any more must not silence it."""

log = structlog.get_logger()


def spread(conn: Connection, now: datetime) -> int:
    """Make a telling for each supervisor that hears of a change; return how many. In the caller's transaction."""
    rows = conn.execute(
        "select n.id, n.at, n.kind, n.severity, n.subject, n.document, n.finding_id, f.closed_at is null and f.clean_looks > 0, "
        "coalesce(f.muted_until > %s, false) from notification n left join finding f on f.id = n.finding_id "
        "where n.spread_at is null order by n.id limit %s for update of n skip locked",
        (now, SPREAD_ROWS),
    ).fetchall()
    over = _over(rows)
    known = supervisors.listing(conn)
    made = 0
    for number, at, kind, severity, subject, document, finding_id, clean, muted in rows:
        if number not in over and _waits(kind, at, clean=bool(clean), now=now):
            continue
        conn.execute("update notification set spread_at = %s where id = %s", (now, number))
        if number in over or muted:
            continue
        one = News(number, at, kind, Severity(severity), subject, document)
        for supervisor in known:
            if _is_about(one, supervisor) or not (
                supervisor.hears(one.severity, now) or _heard_before(conn, supervisor, kind, finding_id)
            ):
                continue
            due, digest = policy.due(supervisor.quiet, one.severity, now)
            conn.execute(
                "insert into telling (notification_id, supervisor, due_at, digest) values (%s, %s, %s, %s)",
                (number, supervisor.name, due, digest),
            )
            made += 1
    return made


def deliver(
    database: Database, carrier: Carrier, now: datetime, between: Callable[[], None] = lambda: None
) -> tuple[int, int]:
    """Tell every active supervisor what is due; return (changes told, supervisors that could not be told)."""
    with database.connection() as conn:
        active = [one for one in supervisors.listing(conn) if one.active]
    told = failures = 0
    for supervisor in active:
        with database.connection() as conn:
            news, digest = _due(conn, supervisor.name, now)
        if not news:
            continue
        between()
        problem = _tell(database, carrier, supervisor, news, now, digest=digest)
        if problem:
            failures += 1
            log.warning("supervisor_untold", action="supervisor_untold", supervisor=supervisor.name, cause=problem)
            with database.transaction() as conn:
                _failed(conn, supervisor.name, news, problem, now)
        else:
            told += len(news)
            with database.transaction() as conn:
                _told(conn, supervisor.name, news, now)
    return told, failures


def pending(conn: Connection) -> list[tuple[str, int, datetime]]:
    """Return (supervisor, changes it was not told yet, when the first is due), for lists."""
    rows: list[Any] = conn.execute(
        "select supervisor, count(*), min(due_at) from telling where told_at is null and gave_up_at is null group by 1 order by 1 limit 100"
    ).fetchall()
    return [(row[0], row[1], row[2]) for row in rows]


def _tell(
    database: Database, carrier: Carrier, supervisor: Supervisor, news: list[News], now: datetime, *, digest: bool
) -> str:
    """Tell one supervisor its news; return why that failed, '' where it did not."""
    sender = letters.Sender(carrier.instance.name, carrier.instance.role, supervisor.language)
    try:
        letter = letters.compose(sender, news, now, digest=digest)
        with database.connection() as conn:
            secret = supervisors.secret_of(conn, carrier.home, supervisor.name)
        carrier.carry(supervisor, secret, letter)
    except MidsourceError as exc:
        return str(exc)
    except Exception as exc:
        log.exception("supervisor_failed", action="supervisor_untold", supervisor=supervisor.name)
        remedy = f"see the worker's log, and try `midsource supervisor test {supervisor.name}`"
        return f"telling it failed by a fault of midsource ({first_line(exc)}): {remedy}."
    return ""


def _over(rows: list[Any]) -> set[int]:
    """Return the notifications of what began and ended before anybody was told: pure."""
    begun: dict[object, list[int]] = {}
    over: set[int] = set()
    for number, _at, kind, _severity, subject, _document, finding_id, *_ in rows:
        about = finding_id if finding_id is not None else subject
        if kind in ("opened", "workflow_failed"):
            begun[about] = [number]
        elif kind == "worsened" and about in begun:
            begun[about].append(number)
        elif kind in ("closed", "workflow_recovered") and about in begun:
            over |= {number, *begun.pop(about)}
    return over


def _waits(kind: str, at: datetime, *, clean: bool, now: datetime) -> bool:
    if kind == "workflow_failed":
        return now - at < SETTLES
    return clean and kind in ("opened", "worsened") and now - at < WAITS


def _is_about(one: News, supervisor: Supervisor) -> bool:
    """Tell whether it says that this very supervisor cannot be reached."""
    return one.subject == f"supervisor.unreachable {supervisor.name}"


def _heard_before(conn: Connection, supervisor: Supervisor, kind: str, finding_id: int | None) -> bool:
    """Whoever was told of something hears that it is over, also where it had become less severe."""
    if kind != "closed" or not supervisor.active:
        return False
    row = conn.execute(
        "select 1 from telling t join notification n on n.id = t.notification_id where n.finding_id = %s and t.supervisor = %s limit 1",
        (finding_id, supervisor.name),
    ).fetchone()
    return row is not None


def _due(conn: Connection, supervisor: str, now: datetime) -> tuple[list[News], bool]:
    rows = conn.execute(
        "select n.id, n.at, n.kind, n.severity, n.subject, n.document, t.digest from telling t join notification n on n.id = t.notification_id "
        "where t.supervisor = %s and t.due_at <= %s and t.told_at is null and t.gave_up_at is null order by n.id limit %s",
        (supervisor, now, letters.MAX_NEWS),
    ).fetchall()
    return [News(row[0], row[1], row[2], Severity(row[3]), row[4], row[5]) for row in rows], any(row[6] for row in rows)


def _told(conn: Connection, supervisor: str, news: list[News], now: datetime) -> None:
    conn.execute(
        "update telling set told_at = %s, tries = tries + 1 where supervisor = %s and notification_id = any(%s)",
        (now, supervisor, [one.id for one in news]),
    )
    supervisors.told(conn, supervisor, now)


def _failed(conn: Connection, supervisor: str, news: list[News], sentence: str, now: datetime) -> None:
    supervisors.failed(conn, supervisor, sentence, now)
    for one in news:
        row = conn.execute(
            "update telling set tries = tries + 1 where supervisor = %s and notification_id = %s returning tries",
            (supervisor, one.id),
        ).fetchone()
        if row is None:  # removed meanwhile
            continue
        gave_up = now if now - one.at > policy.GIVES_UP_AFTER else None
        conn.execute(
            "update telling set due_at = %s, gave_up_at = %s where supervisor = %s and notification_id = %s",
            (now + policy.again(row[0]), gave_up, supervisor, one.id),
        )

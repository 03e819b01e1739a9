"""Findings as they are kept: opened, changed and closed by one look, in one transaction with what is to be told of it.

Order of events of ``record``: one advisory lock, so that a worker's look and a command's come one after the other · the open
findings are read and judged (``model.finding.judge``) · rows and outbox are written · the time of each check's look. Durable with
the caller's transaction. Bounds: closed findings are kept KEPT_DAYS and at most KEPT_ROWS of them, ``forget`` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from midsource.doctor.look import Looked
from midsource.model.errors import NotFound, UserError
from midsource.model.finding import TOLD, Change, Event, Finding, Severity, Standing, judge
from midsource.store.database import Connection

LOOK_LOCK = 0x6D69647372630020
"""Advisory lock key: 'midsrc' and a number; one look is written at a time."""
KEPT_DAYS = 90
KEPT_ROWS = 5_000
LOOKS_KEPT_DAYS = 30
"""What a check that is no more said last goes after this."""
MAX_OPEN = 1_000
"""Far more than all checks may open; a list of them is read whole."""
MAX_LIMIT = 500
MUTE_MOST = timedelta(days=90)
FLAGGED = frozenset({"workflow.failed"})
"""Findings whose change is told by the flag of the workflow itself, in the transaction that sets it (migrations/common/0004_doctor.sql)."""

_COLUMNS = (
    "id, check_name, subject, severity, evidence, cause, remedy, answers, healable, opened_at, seen_at, changed_at, closed_at, "
    "times_seen, clean_looks, muted_until, muted_by"
)


@dataclass(frozen=True, slots=True)
class Look:
    """When a check last looked, as pages show it. ``problem``: why it could not."""

    check: str
    looked_at: datetime
    seconds: float
    found: int
    problem: str


def record(conn: Connection, looked: Looked, now: datetime) -> list[Standing]:
    """Write what a look found; return the findings that are open after it, the worst first."""
    conn.execute("select pg_advisory_xact_lock(%s)", (LOOK_LOCK,))
    for change in judge(standing(conn), looked.findings, looked.looked):
        _apply(conn, change, now)
    for name, seconds in looked.seconds.items():
        found = sum(finding.check == name for finding in looked.findings)
        conn.execute(
            "insert into doctor_look (check_name, looked_at, seconds, found, problem) values (%s, %s, %s, %s, %s) on conflict (check_name) "
            "do update set looked_at = excluded.looked_at, seconds = excluded.seconds, found = excluded.found, problem = excluded.problem",
            (name, now, seconds, found, looked.problems.get(name, "")[:600]),
        )
    return standing(conn)


def standing(conn: Connection) -> list[Standing]:
    """Return the open findings, the worst first, of one severity the oldest first."""
    rows = conn.execute(
        f"select {_COLUMNS} from finding where closed_at is null order by opened_at, id limit %s",  # noqa: S608 - constant
        (MAX_OPEN,),
    ).fetchall()
    return sorted(map(_standing, rows), key=lambda row: -row.finding.severity.rank)


def get(conn: Connection, finding_id: int) -> Standing:
    """Return one finding, open or closed, or raise NotFound."""
    row = conn.execute(f"select {_COLUMNS} from finding where id = %s", (finding_id,)).fetchone()  # noqa: S608 - constant
    if row is None:
        raise NotFound(f"there is no finding {finding_id}", "`midsource doctor` lists those that are open")
    return _standing(row)


def closed(conn: Connection, limit: int = 50, before: int | None = None) -> list[Standing]:
    """Return findings that closed, the last first; with ``before`` those older than that finding."""
    if not 1 <= limit <= MAX_LIMIT:
        raise UserError(f"{limit} findings are not what a page holds", f"ask for 1 to {MAX_LIMIT}")
    rows = conn.execute(
        f"select {_COLUMNS} from finding f where closed_at is not null and (%(before)s::bigint is null or "  # noqa: S608 - constant
        "(closed_at, id) < (select closed_at, id from finding where id = %(before)s)) order by closed_at desc, id desc limit %(limit)s",
        {"before": before, "limit": limit},
    ).fetchall()
    return [_standing(row) for row in rows]


def looks(conn: Connection) -> dict[str, Look]:
    """Return the last look of each check, by its name."""
    rows = conn.execute("select check_name, looked_at, seconds, found, problem from doctor_look limit 1000").fetchall()
    return {row[0]: Look(*row) for row in rows}


def mute(conn: Connection, finding_id: int, until: datetime | None, by: str, now: datetime) -> Standing:
    """Tell nobody about an open finding until then; None: tell again. Raises NotFound, UserError for a closed one or 90 days."""
    found = get(conn, finding_id)
    if found.closed_at is not None:
        raise UserError(f"finding {finding_id} is closed", "only an open one is told")
    if until is not None and not now < until <= now + MUTE_MOST:
        raise UserError("a finding is muted for at most 90 days from now", "give a shorter time; it can be repeated")
    conn.execute("update finding set muted_until = %s, muted_by = %s where id = %s", (until, by, finding_id))
    return get(conn, finding_id)


def forget(conn: Connection, now: datetime) -> int:
    """Delete what closed long ago, what was told long ago, and looks of checks that are no more; return how many findings went."""
    gone = conn.execute(
        "delete from finding where closed_at < %s or id in (select id from finding where closed_at is not null "
        "order by closed_at desc offset %s)",
        (now - timedelta(days=KEPT_DAYS), KEPT_ROWS),
    ).rowcount
    conn.execute("delete from notification where at < %s", (now - timedelta(days=LOOKS_KEPT_DAYS),))
    conn.execute("delete from doctor_look where looked_at < %s", (now - timedelta(days=LOOKS_KEPT_DAYS),))
    return gone


def counted(conn: Connection) -> dict[Severity, int]:
    """Return how many findings are open, by severity; muted ones among them."""
    found = dict.fromkeys(Severity, 0)
    rows = conn.execute("select severity, count(*) from finding where closed_at is null group by 1").fetchall()
    return found | {Severity(severity): count for severity, count in rows}


def needing_somebody(conn: Connection, now: datetime) -> int:
    """Return how many open findings are neither for information nor muted: what status pages say."""
    row = conn.execute(
        "select count(*) from finding where closed_at is null and severity <> 'info' and coalesce(muted_until <= %s, true)",
        (now,),
    ).fetchone()
    return int(row[0]) if row else 0


def _apply(conn: Connection, change: Change, now: datetime) -> None:
    finding, finding_id = change.finding, change.id
    if change.event is Event.OPENED:
        finding_id = _open(conn, finding, now)
    elif change.event is Event.CLEAN:
        conn.execute("update finding set clean_looks = clean_looks + 1 where id = %s", (finding_id,))
    elif change.event is Event.CLOSED:
        conn.execute("update finding set closed_at = %s, changed_at = %s where id = %s", (now, now, finding_id))
    elif change.event is Event.SAME:
        conn.execute(
            "update finding set seen_at = %s, times_seen = times_seen + 1, clean_looks = 0 where id = %s",
            (now, finding_id),
        )
    else:
        conn.execute(
            "update finding set severity = %s, evidence = %s, cause = %s, remedy = %s, answers = %s, healable = %s, seen_at = %s, "
            "changed_at = %s, times_seen = times_seen + 1, clean_looks = 0 where id = %s",
            (*_values(finding)[2:], now, now, finding_id),
        )
    if change.event in TOLD and finding.severity is not Severity.INFO and finding.check not in FLAGGED:
        _tell(conn, change.event, finding, finding_id, now)


def _open(conn: Connection, finding: Finding, now: datetime) -> int:
    row = conn.execute(
        "insert into finding (check_name, subject, severity, evidence, cause, remedy, answers, healable, opened_at, seen_at, changed_at) "
        "values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning id",
        (*_values(finding), now, now, now),
    ).fetchone()
    assert row is not None
    return int(row[0])


def _tell(conn: Connection, event: Event, finding: Finding, finding_id: int | None, now: datetime) -> None:
    document = asdict(finding) | {"id": finding_id}
    conn.execute(
        "insert into notification (at, kind, severity, subject, finding_id, document) values (%s, %s, %s, %s, %s, %s)",
        (
            now,
            str(event),
            str(finding.severity),
            f"{finding.check} {finding.subject}".strip(),
            finding_id,
            Jsonb(document),
        ),
    )


def _values(finding: Finding) -> tuple[Any, ...]:
    return (
        finding.check,
        finding.subject,
        str(finding.severity),
        *(finding.evidence, finding.cause, finding.remedy),
        list(finding.answers),
        finding.healable,
    )


def _standing(row: Sequence[Any]) -> Standing:
    number, check, subject, severity, evidence, cause, remedy, answers, healable, *rest = row
    finding = Finding(check, subject, Severity(severity), evidence, cause, remedy, tuple(answers), healable)
    return Standing(number, finding, *rest)


def above_info(rows: Iterable[Standing], now: datetime) -> list[Standing]:
    """Return what needs somebody: neither for information nor muted."""
    return [row for row in rows if row.finding.severity is not Severity.INFO and not row.is_muted(now)]

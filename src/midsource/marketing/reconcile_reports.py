"""The reports of comparisons: begun, carried on after a crash, read. One row of ``reconcile_report`` each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from midsource.policy.reconciling import Seen, Verdict
from midsource.store.database import Connection

SCHEDULE = "schedule"
"""Who asks where nobody did."""
UNTOLD = "the mid was restored and is not yet told what is known here"
"""The one problem that passes: nothing was compared, and can be as soon as the mid is told."""
EXAMPLES = 20
KEPT = timedelta(days=90)
FORGOTTEN_ROWS = 5_000
"""Old reports deleted in one statement."""


@dataclass(slots=True)
class Report:
    """One comparison; its counters grow as it goes on. Columns: see the table."""

    id: int
    delivery_id: int
    account: str
    asked_by: str
    dry_run: bool
    started_at: datetime
    finished_at: datetime | None = None
    next_block: int = 0
    last_block: int = -1
    blocks: int = 0
    differing: int = 0
    rows: int = 0
    missing: int = 0
    behind: int = 0
    ahead: int = 0
    changed: int = 0
    repaired: int = 0
    unexplained: int = 0
    unjudged: int = 0
    moving_blocks: int = 0
    lost: int = 0
    totals_wrong: int = 0
    mid_counters_wrong: int = 0
    delivery_wrong: bool = False
    seconds: float = 0.0
    examples: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""

    @property
    def differences(self) -> int:
        """Rows that were not the same on both sides."""
        return self.missing + self.behind + self.ahead + self.changed + self.unexplained

    @property
    def is_clean(self) -> bool:
        """Whether nothing at all was found to be wrong."""
        wrong = self.differences + self.lost + self.totals_wrong + self.mid_counters_wrong
        return not wrong and not self.delivery_wrong and not self.problem

    @property
    def is_settled(self) -> bool:
        """Whether everything was looked at and judged."""
        return self.finished_at is not None and not self.unjudged and not self.moving_blocks and not self.problem

    def count(self, verdict: Verdict, message_id: int, ours: Seen | None, theirs: Seen | None) -> None:
        """Count one message that differed, with the first ones as examples."""
        match verdict:
            case Verdict.MISSING:
                self.missing += 1
            case Verdict.BEHIND:
                self.behind += 1
            case Verdict.AHEAD:
                self.ahead += 1
            case Verdict.CHANGED:
                self.changed += 1
            case Verdict.UNKNOWN:
                self.unexplained += 1
            case _:
                return
        if len(self.examples) < EXAMPLES:
            told = {"id": message_id, "what": verdict.value, "ours": _triple(ours), "mid": _triple(theirs)}
            self.examples.append(told)

    def sentence(self) -> str:
        """Say what came of it."""
        found = [
            f"{n} {words}"
            for n, words in (
                (self.missing, "rows were missing"),
                (self.behind, "results had been skipped"),
                (self.ahead, "rows claimed more than the mid knows"),
                (self.changed, "rows held another state or reason"),
                (self.unexplained, "rows cannot be explained"),
                (self.lost, "people have no row any more, on either side"),
                (self.totals_wrong, "totals of the log were wrong"),
                (self.mid_counters_wrong, "counters of the mid were wrong"),
                (int(self.delivery_wrong), "state or figures were not the mid's"),
            )
            if n
        ]
        head = f"delivery {self.delivery_id}: {self.blocks} blocks compared with {self.account}"
        left = f"; {self.unjudged} rows and {self.moving_blocks} blocks still move" if not self.is_judged else ""
        if self.problem:
            return f"delivery {self.delivery_id} could not be compared with {self.account}: {self.problem}"
        if not found:
            return f"{head}, no difference{left}"
        mended = "nothing is changed (dry run)" if self.dry_run else f"{self.repaired} rows repaired"
        return f"{head}: {', '.join(found)}; {mended}{left}"

    @property
    def is_judged(self) -> bool:
        """Whether nothing was left because it moved."""
        return not self.unjudged and not self.moving_blocks


_NAMES = [each.name for each in fields(Report)]
_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, _NAMES))
_GROWING = [
    name for name in _NAMES if name not in ("id", "delivery_id", "account", "asked_by", "dry_run", "started_at")
]


def begin(conn: Connection, delivery_id: int, account: str, by: str, now: datetime, *, dry_run: bool) -> Report:
    """Begin a report, or go on with the one of the schedule that was left unfinished (a crash, the end of a slice)."""
    if by == SCHEDULE:
        found = _read(
            conn,
            "delivery_id = %(delivery)s and asked_by = %(by)s and finished_at is null order by id desc limit 1",
            {"delivery": delivery_id, "by": by},
        )
        if found:
            return found[0]
    row = conn.execute(
        "insert into reconcile_report (delivery_id, account, asked_by, dry_run, started_at) values (%s, %s, %s, %s, %s) "
        "returning id",
        (delivery_id, account, by, dry_run, now),
    ).fetchone()
    assert row is not None
    return Report(row[0], delivery_id, account, by, dry_run, now)


def save(conn: Connection, report: Report) -> None:
    """Keep how far a comparison came, in the transaction of the repairs it counts."""
    values = {name: getattr(report, name) for name in _GROWING} | {"examples": Jsonb(report.examples)}
    conn.execute(
        sql.SQL("update reconcile_report set {} where id = %(id)s").format(
            sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in _GROWING
            )
        ),
        {**values, "id": report.id},
    )


def latest(conn: Connection, delivery_id: int, limit: int = 5) -> list[Report]:
    """Return the newest reports of a delivery, newest first."""
    return _read(
        conn, "delivery_id = %(delivery)s order by id desc limit %(limit)s", {"delivery": delivery_id, "limit": limit}
    )


def newest(conn: Connection, *, only_wrong: bool, limit: int = 50) -> list[Report]:
    """Return the newest reports of all deliveries, newest first; ``only_wrong``: those that found something."""
    wrong = (
        "missing + behind + ahead + changed + unexplained + lost + totals_wrong + mid_counters_wrong > 0 "
        "or delivery_wrong or problem <> ''"
    )
    return _read(conn, f"{f'({wrong})' if only_wrong else 'true'} order by id desc limit %(limit)s", {"limit": limit})


def as_dict(report: Report) -> dict[str, Any]:
    """Return it for programs: its columns, and what follows from them."""
    told = {name: getattr(report, name) for name in _NAMES if name not in ("next_block", "last_block")}
    return told | {
        "differences": report.differences,
        "clean": report.is_clean,
        "settled": report.is_settled,
        "sentence": report.sentence(),
    }


def forget_old(conn: Connection, now: datetime) -> int:
    """Delete reports older than KEPT, a bounded number; return how many."""
    return conn.execute(
        "delete from reconcile_report where id in (select id from reconcile_report where started_at < %s limit %s)",
        (now - KEPT, FORGOTTEN_ROWS),
    ).rowcount


def _read(conn: Connection, condition: str, params: Mapping[str, object]) -> list[Report]:
    with conn.cursor(row_factory=class_row(Report)) as cursor:
        return cursor.execute(
            sql.SQL("select {} from reconcile_report where {}").format(_COLUMNS, sql.SQL(condition)),
            params,
        ).fetchall()


def _triple(seen: Seen | None) -> list[int] | None:
    return None if seen is None else [seen.state, seen.reason, seen.revision]

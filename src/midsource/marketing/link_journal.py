"""Every call over the link that failed, in the words operators search for.

One failure is one `link_event` row, one line in the journal of the job or run, and so one log line:

    AppendDeliveryPart part 17 of 40: HTTP 408, attempt 2, next with 500 rows in 8 s

The method names are the field's (spec/midsourcing 1.8). A row is durable when ``record`` returns; the table is bounded by
back-off (a dead mid costs one row a minute and account) and by retention.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from midsource.engine.work import Context
from midsource.model.errors import MidsourceError
from midsource.store.database import Connection, scalar
from midsource.wire.failures import answer_of, status_of

MAX_LINE = 600
RECENT = timedelta(minutes=10)
"""Failures of the same call within this time count as attempts in a row: back-off tops out at a minute, so ten of them
keep the longest pause, and after ten quiet minutes counting starts anew."""


class Method(StrEnum):
    """Calls by the names the field knows."""

    HELLO = "TestCnx"
    SUBMIT = "SubmitMidSourcing"
    APPEND = "AppendDeliveryPart"
    FINALISE = "FinalizeMidPreparation"
    COMMAND = "ExecCommand"
    DELIVERIES = "GetMidDeliveries"
    LOGS = "GetMidBroadLogs"


def sentence(method: Method, subject: str, error: MidsourceError, attempt: int, following: str) -> str:
    """Compose the line; ``subject`` ('part 17 of 40') and ``following`` ('next in 8 s') may be empty."""
    start = f"{method} {subject}" if subject else str(method)
    end = f", {following}" if following else ""
    return f"{start}: {answer_of(error)}, attempt {attempt}{end}"[:MAX_LINE]


def in_seconds(seconds: float, rows: int | None = None) -> str:
    """Compose the next step: 'next with 500 rows in 8 s'."""
    pause = f"{seconds:.1f} s" if 0 < seconds < 0.95 else f"{seconds:.0f} s"
    return f"next with {rows} rows in {pause}" if rows is not None else f"next in {pause}"


@dataclass(frozen=True, slots=True)
class Call:
    """A call that failed: whose, which, about what (``subject``: 'part 17 of 40', or empty)."""

    account: str
    method: Method
    subject: str = ""
    delivery_id: int | None = None


def record(context: Context, call: Call, error: MidsourceError, attempt: int, following: str) -> None:
    """Store one failure and say it in the journal; the account keeps the sentence as its last problem."""
    line = sentence(call.method, call.subject, error, attempt, following)
    context.say("warning", line)
    with context.database.transaction() as conn:
        conn.execute(
            "insert into link_event (account, delivery_id, method, http_code, attempt, line) values (%s, %s, %s, %s, %s, %s)",
            (call.account, call.delivery_id, str(call.method), status_of(error), attempt, line),
        )
        conn.execute(
            "update external_account set last_problem = %s where name = %s and last_problem <> %s",
            (str(error)[:MAX_LINE], call.account, str(error)[:MAX_LINE]),
        )


def next_attempt(conn: Connection, account: str, method: Method, delivery_id: int | None = None) -> int:
    """Return the number of the coming attempt: one more than the failures of this call in the last ten minutes."""
    failures = scalar(
        conn,
        "select count(*) from link_event where account = %s and method = %s and at > clock_timestamp() - %s "
        "and (%s::bigint is null or delivery_id = %s) and at > coalesce((select last_hello_at from external_account where name = %s), '-infinity')",
        (account, str(method), RECENT, delivery_id, delivery_id, account),
    )
    return int(failures) + 1


def latest(conn: Connection, delivery_id: int, limit: int) -> list[str]:
    """Return the newest failures of the link about a delivery, as the sentences operators search for, newest first."""
    rows = conn.execute(
        "select at, line from link_event where delivery_id = %s order by id desc limit %s", (delivery_id, limit)
    ).fetchall()
    return [f"{at:%Y-%m-%d %H:%M:%SZ} {line}" for at, line in rows]

"""What failed when a technical workflow last tried it: a delivery, or a whole account. It must hold up nothing else.

Order of events: a try fails and is noted; the run leaves it and goes on with the others, in this slice and in those that
follow; its last slice names everything that failed since the run began. The next run tries it again, behind what did not
fail. A try that succeeds forgets the note. A note is durable with the caller's transaction; those older than KEPT are of
deliveries nobody tries any more, and go when another is noted.

Times are the database's, as those of the runs: clocks of several workers may differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from midsource.model.errors import MidsourceError, RemoteRefused, first_line
from midsource.store.database import Connection
from midsource.wire.failures import LinkFailure

KEPT = timedelta(days=30)
"""Longer than any delivery is compared, counted or recounted after its end."""
MOST = 1_000
"""Notes read at once: more than a run has time to make."""
MAX_CAUSE = 300


class Step(StrEnum):
    """What was tried."""

    RECOUNT = "recount"
    STATISTICS = "statistics"
    COMPARISON = "comparison"
    DELIVERIES = "deliveries"
    LOGS = "logs"


@dataclass(frozen=True, slots=True)
class FailedTry:
    """One note. ``delivery_id`` 0: of the account itself. ``is_over`` False: it may yet pass in the run that noted it,
    or is no failure: there was nothing to be had.

    ``rests_seconds``: until that run may try again; None: it does not.
    """

    account: str
    delivery_id: int
    rests_seconds: float | None
    is_over: bool
    kind: str
    cause: str


def note(
    conn: Connection,
    step: Step,
    account: str,
    exc: Exception,
    *,
    delivery_id: int = 0,
    rests_seconds: float | None = None,
    is_over: bool = True,
) -> FailedTry:
    """Note that a try failed just now, and return the note."""
    noted = FailedTry(account, delivery_id, rests_seconds, is_over, type(exc).__name__, cause_of(exc))
    conn.execute(
        "insert into failed_try (step, account, delivery_id, not_before, is_over, kind, cause) "
        "values (%s, %s, %s, clock_timestamp() + make_interval(secs => %s), %s, %s, %s) "
        "on conflict (step, account, delivery_id) do update set failed_at = excluded.failed_at, "
        "not_before = excluded.not_before, is_over = excluded.is_over, kind = excluded.kind, cause = excluded.cause",
        (str(step), account, delivery_id, rests_seconds, is_over, noted.kind, noted.cause),
    )
    conn.execute("delete from failed_try where failed_at < clock_timestamp() - %s::interval", (KEPT,))
    return noted


def forget(conn: Connection, step: Step, account: str, delivery_id: int = 0) -> None:
    """Forget what was noted: the try succeeded."""
    conn.execute(
        "delete from failed_try where step = %s and account = %s and delivery_id = %s",
        (str(step), account, delivery_id),
    )


def since(conn: Connection, step: Step, moment: datetime) -> list[FailedTry]:
    """Return what failed at or after ``moment``, the first first."""
    rows = conn.execute(
        "select account, delivery_id, extract(epoch from not_before - clock_timestamp())::float, is_over, kind, cause "
        "from failed_try "
        "where step = %s and failed_at >= %s order by failed_at, delivery_id limit %s",
        (str(step), moment, MOST),
    ).fetchall()
    return [FailedTry(*row) for row in rows]


def cause_of(exc: Exception) -> str:
    """Return the cause in words; of what nobody foresaw, its class and first line."""
    return (exc.cause if isinstance(exc, MidsourceError) else first_line(exc))[:MAX_CAUSE]


def is_of_account(exc: Exception) -> bool:
    """Tell whether every other call to that mid would fail alike: it refuses us, or does not answer at all."""
    return isinstance(exc, RemoteRefused) or (isinstance(exc, LinkFailure) and not exc.reached)

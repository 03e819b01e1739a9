"""Counters of the delivery log: `broad_log_total`, and the recount that keeps them honest (invariant 2).

Every statement that changes log rows moves the totals by what it changed. When a delivery has ended and no row of it is
pending or deferred any more, totals and rows are compared once; the rows win, and a difference is told in the journal.
The correction adds the difference to the total, so it commutes with a page that is being written meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from midsource.marketing import dropped, failed_tries
from midsource.marketing.failed_tries import Step
from midsource.model.errors import MidsourceError, Unhealthy
from midsource.model.message import MessageState
from midsource.store.database import Connection, Database, StatementTimeout

DELIVERIES_AT_ONCE = 20
"""Ended deliveries recounted in one run of the counters workflow; the next run takes the next ones."""
RECOUNT_SECONDS = 300
"""One GROUP BY over the log of one delivery: about a second for a million rows."""
RECOUNT_AGAIN = timedelta(days=1)
"""After a recount that failed: one that takes all its time costs five minutes a day. `reconcile` counts anew, too."""

_RECOUNT_LOCK = 0x746F7461
"""First half of the advisory lock key of a recount; the second is of the delivery."""

_ENDED = """
select d.id, d.account from delivery d
left join failed_try f on f.step = 'recount' and f.account = d.account and f.delivery_id = d.id
where d.state in (85, 87, 95) and d.recounted_at is null and d.log_dropped_at is null and not exists (
    select from broad_log_total t where t.delivery_id = d.id and t.state = any(%s) and t.n > 0)
and (f.failed_at is null or f.failed_at < clock_timestamp() - %s::interval)
order by f.failed_at nulls first, d.id limit %s
"""

_DRIFT = """
select domain, state, reason, coalesce(rows.n, 0) - coalesce(total.n, 0) as drift
from (select domain, state, reason, count(*) as n from broad_log where delivery_id = %(delivery)s group by 1, 2, 3) rows
full join (select domain, state, reason, n from broad_log_total where delivery_id = %(delivery)s) total
     using (domain, state, reason)
where coalesce(rows.n, 0) <> coalesce(total.n, 0)
"""

_CORRECT = """
insert into broad_log_total as t (delivery_id, domain, state, reason, n) values (%s, %s, %s, %s, %s)
on conflict (delivery_id, domain, state, reason) do update set n = t.n + excluded.n
"""


def by_state(conn: Connection, delivery_id: int) -> dict[MessageState, int]:
    """Return how many rows of a delivery's log are in each state."""
    rows = conn.execute(
        "select state, sum(n)::bigint from broad_log_total where delivery_id = %s group by state", (delivery_id,)
    ).fetchall()
    return {MessageState(state): n for state, n in rows}


def recount_ended(database: Database, say: Callable[[str, str], None]) -> int:
    """Recount deliveries that have ended since; return how many totals were wrong. Each delivery is a transaction.

    One that cannot be recounted is said and left for RECOUNT_AGAIN. After one that took too long no other is begun: the
    results of deliveries under way wait meanwhile. Raises Unhealthy where the database itself is away.
    """
    open_states = [int(MessageState.PENDING), int(MessageState.DEFERRED)]
    with database.connection() as conn:
        ended = conn.execute(_ENDED, (open_states, RECOUNT_AGAIN, DELIVERIES_AT_ONCE)).fetchall()
    wrong = 0
    for delivery_id, account in ended:
        try:
            with database.transaction(statement_seconds=RECOUNT_SECONDS) as conn:
                drift = recount(conn, delivery_id)
                conn.execute("update delivery set recounted_at = now() where id = %s", (delivery_id,))
                failed_tries.forget(conn, Step.RECOUNT, account, delivery_id)
        except Unhealthy:
            raise
        except MidsourceError as exc:
            with database.transaction() as conn:
                noted = failed_tries.note(conn, Step.RECOUNT, account, exc, delivery_id=delivery_id)
            say("warning", f"totals of delivery {delivery_id} could not be compared with its log: {noted.cause}")
            if isinstance(exc, StatementTimeout):
                break
            continue
        if drift:
            say(
                "warning", f"totals of delivery {delivery_id} differed from its log in {drift} places and are corrected"
            )
        wrong += drift
    return wrong


def recount(conn: Connection, delivery_id: int) -> int:
    """Compare the totals of one delivery with its rows and correct them; return how many were wrong.

    One at a time for a delivery: two that found the same difference would both add it. Raises Conflict where `cleanup` has
    dropped its log: the totals are all there is then.
    """
    dropped.refuse(conn, delivery_id)
    conn.execute("select pg_advisory_xact_lock(%s, hashint8(%s))", (_RECOUNT_LOCK, delivery_id))
    wrong = drift(conn, delivery_id)
    for domain, state, reason, difference in wrong:
        conn.execute(_CORRECT, (delivery_id, domain, state, reason, difference))
    return len(wrong)


def drift(conn: Connection, delivery_id: int) -> list[tuple[str, int, int, int]]:
    """Return (domain, state, reason, rows more than counted) where the totals of one delivery are wrong."""
    found = conn.execute(_DRIFT, {"delivery": delivery_id}).fetchall()
    return [(domain, state, reason, int(n)) for domain, state, reason, n in found]

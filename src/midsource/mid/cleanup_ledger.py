"""The step of `cleanup` that drops the ledger of messages, a month of deliveries at a time, over all accounts (store/months.py).

Each account must have acknowledged the results of the days up to the end of its deliveries. Deliveries are marked
(`ledger_dropped_at`): their counters stay. One that was handed over and never started holds its month up; stop it.
"""

from __future__ import annotations

from datetime import timedelta

from midsource.mid.cleanup_feed import oldest_unpulled
from midsource.model.options import BROAD_LOG_DELAY
from midsource.store.cleanup import Step
from midsource.store.database import Connection
from midsource.store.months import Months

DAY = timedelta(days=1)
_LAST_DAYS = """
select account_id, (max(finished_at) at time zone 'UTC')::date from delivery
where id >= %(low)s and id < %(high)s and ledger_dropped_at is null group by account_id
"""


def _unpulled(conn: Connection, span: dict[str, object]) -> str:
    """Say so where an account has not acknowledged the results up to the end of its deliveries of this month."""
    unpulled = oldest_unpulled(conn)
    ended = conn.execute(_LAST_DAYS, span).fetchall()
    waits = any(last is not None and unpulled.get(account, last + DAY) <= last for account, last in ended)
    return "results of its deliveries are not acknowledged" if waits else ""


_MONTHS = Months(
    "message",
    held="""
        select id, finished_at from delivery
         where id >= %(low)s and id < %(high)s and ledger_dropped_at is null
           and (finished_at is null or finished_at >= %(before)s)
         order by finished_at desc nulls first limit 1
        """,
    any="select exists (select from delivery where id >= %(low)s and id < %(high)s)",
    mark="""
        update delivery set ledger_dropped_at = %(now)s
         where id >= %(low)s and id < %(high)s and ledger_dropped_at is null
        """,
    waits=_unpulled,
)
STEP = Step(
    "ledger_months",
    "the ledger of messages, by months whose deliveries are all over and pulled",
    _MONTHS.count,
    _MONTHS.page,
    BROAD_LOG_DELAY,
)

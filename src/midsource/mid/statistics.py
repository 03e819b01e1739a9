"""Statistics of one delivery by recipient domain, counted from the ledger in one statement; for ``GET statistics``.

Bounds: MAX_DOMAINS by name, about six states and reasons each; READ_SECONDS for the statement (a million messages: a second).
"""

from __future__ import annotations

from datetime import datetime

from midsource.mid import deliveries
from midsource.mid.reconcile import READ_SECONDS, Look
from midsource.model.errors import NotFound
from midsource.store.database import Database, scalar
from midsource.wire.statistics import MAX_DOMAINS, OTHERS, DomainRow, Statistics

_COUNTED = """
with counted as (
    select domain, state, reason, count(*) as n, min(first_try_at) as first_at,
           max(event_at) filter (where first_try_at is not null) as last_at
    from message where account_id = %(account)s and delivery_id = %(delivery)s group by 1, 2, 3
), ranked as (
    select domain, row_number() over (order by sum(n) desc, domain) as rank, count(*) over () as domains
    from counted group by domain
)
select case when r.rank <= %(most)s then c.domain else %(others)s end, c.state, c.reason, sum(c.n)::bigint,
       min(c.first_at), max(c.last_at), max(r.domains)
from counted c join ranked r using (domain) group by 1, 2, 3 order by 1, 2, 3
"""


def read(database: Database, account_id: int, delivery_id: int, now: datetime) -> Statistics:
    """Count a delivery by domain. Raises NotFound, also where its ledger was dropped after it was kept for its time."""
    with database.transaction(statement_seconds=READ_SECONDS) as conn:
        look = Look(conn, account_id)
        deliveries.find(conn, account_id, delivery_id)
        gone = "select ledger_dropped_at is not null from delivery where account_id = %s and id = %s"
        if scalar(conn, gone, (account_id, delivery_id)):
            raise NotFound(f"the ledger of delivery {delivery_id} is not kept any more", "its counters stay")
        found = conn.execute(
            _COUNTED, {"account": account_id, "delivery": delivery_id, "most": MAX_DOMAINS, "others": OTHERS}
        ).fetchall()
    return Statistics(
        generation=look.generation,
        seq=look.covered(database, now),
        now=now,
        domains=max((row[6] for row in found), default=0),
        rows=tuple(
            DomainRow(domain=domain, state=state, reason=reason, n=n, first_at=first_at, last_at=last_at)
            for domain, state, reason, n, first_at, last_at, _ in found
        ),
    )

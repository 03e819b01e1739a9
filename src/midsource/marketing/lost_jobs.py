"""Ask again for jobs that deliveries need and nobody has (policy/lost_jobs.py decides which)."""

from __future__ import annotations

from datetime import datetime, timedelta

from midsource.engine import jobs
from midsource.model.delivery import FINAL, DeliveryState
from midsource.policy.lost_jobs import TRIES, needed
from midsource.store.database import Connection, Database

LOOKED_AT = 500
"""Deliveries looked at in one run, those that stood longest first."""
A_DAY = timedelta(days=1)
BY = "deliveryMgt"

_STANDING = """
select d.id, d.state, d.confirmed_at is not null, d.ordered is not null and d.order_confirmed_at is null,
       greatest(d.modified_at, d.ordered_at, d.confirmed_at,
                (select max(j.finished_at) from job j where j.subject = d.id)) as since
from delivery d
where d.state <> all(%(final)s) and d.recurrence = '' and d.error = ''
    and (d.confirmed_at is not null and d.state < 45 or d.ordered is not null and d.order_confirmed_at is null)
    and not exists (select from job j where j.subject = d.id and j.finished_at is null)
order by since limit %(most)s
"""


def ask_again(database: Database, now: datetime) -> list[str]:
    """Ask for what is needed, each delivery in a transaction of its own; return a line for each."""
    final = [int(state) for state in FINAL]
    with database.connection() as conn:
        standing = conn.execute(_STANDING, {"final": final, "most": LOOKED_AT}).fetchall()
    lines = []
    for delivery_id, state, confirmed, unconfirmed, since in standing:
        step = needed(DeliveryState(state), confirmed=confirmed, unconfirmed_order=unconfirmed)
        if step is None or now - since < step.patience:
            continue
        with database.transaction() as conn:
            if _tried(conn, delivery_id, step.job, now) >= TRIES:
                continue  # the doctor says that it stands still
            job = jobs.ask(conn, step.job, delivery_id, BY)
        label = DeliveryState(state).label
        lines.append(f"delivery {delivery_id} stood {label} without a job: {step.job} is asked for again ({job})")
    return lines


def _tried(conn: Connection, delivery_id: int, kind: str, now: datetime) -> int:
    found = conn.execute(
        "select count(*) from job where subject = %s and kind = %s and asked_at > %s", (delivery_id, kind, now - A_DAY)
    ).fetchone()
    return int(found[0]) if found else 0

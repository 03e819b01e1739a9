"""What a marketing instance says about deliveries, the link and its pointers, for ``/metrics``.

Nothing counts people or log rows: figures of messages are sums of stored totals, of deliveries of two months at most, whose
range of ids is known from the calendar. See store/measures.py for the shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from midsource.model.delivery import DeliveryState
from midsource.model.ids import first_of_last_month
from midsource.model.metrics import RECENT_HOURS, Sample
from midsource.store.database import Connection
from midsource.store.measures import messages


def deliveries(conn: Connection, now: datetime) -> Iterator[Sample]:
    """Yield deliveries and messages by state."""
    since = first_of_last_month(now)
    rows = conn.execute("select account, state, count(*) from delivery where id >= %s group by 1, 2", (since,))
    for account, state, count in rows:
        yield Sample("midsource_deliveries", count, (account, DeliveryState(state).label))
    totals = conn.execute(
        "select d.account, t.state, sum(t.n)::float8 from broad_log_total t join delivery d on d.id = t.delivery_id "
        "where t.delivery_id >= %s group by 1, 2",
        (since,),
    )
    yield from messages(totals)


def parts(conn: Connection, now: datetime) -> Iterator[Sample]:
    """Yield delivery parts by state, and orders that wait for their confirmation."""
    rows = conn.execute(
        "select d.account, p.state, count(*) from upload_part p join delivery d on d.id = p.delivery_id "
        "where p.delivery_id >= %s group by 1, 2",
        (first_of_last_month(now),),
    )
    for account, state, count in rows:
        yield Sample("midsource_parts", count, (account, state))
    waiting = conn.execute(
        "select a.name, count(d.id) from external_account a left join delivery d on d.account = a.name "
        "and d.state not in (85, 87, 95) and d.ordered is not null and d.order_confirmed_at is null group by 1"
    )
    for account, count in waiting:
        yield Sample("midsource_orders_unconfirmed", count, (account,))


def link(conn: Connection, now: datetime) -> Iterator[Sample]:
    """Yield how each mid answers, and the calls that failed lately."""
    rows = conn.execute(
        "select name, coalesce(last_hello_at, created_at), last_problem <> '' from external_account where active"
    )
    for account, answered, problem in rows:
        yield Sample("midsource_account_answer_age_seconds", (now - answered).total_seconds(), (account,))
        yield Sample("midsource_account_problem", problem, (account,))
    failed = conn.execute(
        "select e.account, e.method, e.http_code, count(*) from external_account a "
        "join link_event e on e.account = a.name and e.at > %s group by 1, 2, 3",
        (now - timedelta(hours=RECENT_HOURS),),
    )
    for account, method, code, count in failed:
        yield Sample("midsource_link_failures", count, (account, method, str(code)))


def pointers(conn: Connection, now: datetime) -> Iterator[Sample]:
    """Yield how far each lane of each pointer is behind, and what a mid no longer had."""
    for account, stream, lane, reached in conn.execute("select account, stream, lane, reached_at from pointer"):
        lag = max(0.0, (now - reached).total_seconds())
        yield Sample("midsource_pointer_lag_seconds", lag, (account, stream, lane))
    lost = conn.execute(  # 0 where nothing was lost, so that no series comes and goes
        "select p.account, p.stream, coalesce(sum(l.rows), 0) from pointer p left join feed_loss l "
        "on l.account = p.account and l.stream = p.stream and l.mended_at is null where p.lane = 'backlog' group by 1, 2"
    )
    for account, stream, rows in lost:
        yield Sample("midsource_feed_lost_messages", float(rows), (account, stream))

"""What a mid says about what it holds, sends and hands back, for ``/metrics``.

Nothing counts messages: figures are sums of folded tallies plus those not folded yet, as everywhere (mid/counters.py), of
deliveries of two months at most. Backlogs are counted to a limit. See store/measures.py for the shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from midsource.mid import counters
from midsource.model.delivery import DeliveryState
from midsource.model.ids import first_of_last_month
from midsource.model.metrics import COUNTED_AT_MOST, Sample
from midsource.store import processes
from midsource.store.database import Connection, scalar
from midsource.store.measures import messages


def deliveries(conn: Connection, now: datetime) -> Iterator[Sample]:
    """Yield deliveries, parts and messages by account and state."""
    since = first_of_last_month(now)
    rows = conn.execute(
        "select a.name, d.state, count(*) from delivery d join account a on a.id = d.account_id where d.id >= %s group by 1, 2",
        (since,),
    )
    for account, state, count in rows:
        yield Sample("midsource_deliveries", count, (account, DeliveryState(state).label))
    rows = conn.execute(
        "select a.name, count(*) from account a join delivery_part p on p.account_id = a.id and p.delivery_id >= %s group by 1",
        (since,),
    )
    for account, count in rows:
        yield Sample("midsource_parts", count, (account, "taken"))
    yield from messages(counters.totals_since(conn, since))


def dispatch(conn: Connection, now: datetime) -> Iterator[Sample]:
    """Yield what waits for mta processes, and what they hold."""
    row = conn.execute(
        "select count(*) filter (where owner is null and ready_at <= %(now)s), count(*) filter (where owner is not null), "
        "count(*) filter (where owner is null and ready_at > %(now)s), "
        "extract(epoch from %(now)s - min(ready_at) filter (where owner is null and ready_at <= %(now)s))::float8, "
        "count(*) filter (where expires_at < now()) from dispatch_batch",
        {"now": now},
    ).fetchone()
    assert row is not None
    for state, count in zip(("ready", "leased", "deferred"), row, strict=False):
        yield Sample("midsource_dispatch_batches", count, (state,))
    yield Sample("midsource_dispatch_ready_age_seconds", row[3] or 0)
    yield Sample("midsource_leases_expired", row[4])
    yield Sample("midsource_outcomes_set_aside", scalar(conn, "select count(*) from outcome_aside"))


def feeds(conn: Connection, now: datetime) -> Iterator[Sample]:
    """Yield what has not been fetched yet, by account and stream."""
    unnumbered = "select count(*) from (select 1 from feed_batch where seq is null limit %s) x"
    yield Sample("midsource_feed_unnumbered", scalar(conn, unnumbered, (COUNTED_AT_MOST,)))
    rows = conn.execute(
        """
        select a.name, s.stream, coalesce(k.asked_at, a.created_at),
               (select count(*) from (select 1 from feed_batch b where b.account_id = a.id and b.seq > coalesce(k.seq, 0)
                                       limit %s) x)
          from account a cross join unnest(array['deliveries', 'logs']) s (stream)
          left join feed_ack k on k.account_id = a.id and k.stream = s.stream
         where a.active
        """,
        (COUNTED_AT_MOST,),
    )
    for account, stream, asked, waiting in rows:
        yield Sample("midsource_feed_backlog", waiting, (account, stream))
        yield Sample("midsource_feed_asked_age_seconds", (now - asked).total_seconds(), (account, stream))


def journals(conn: Connection, root: Path) -> Iterator[Sample]:
    """Yield the journals in ``root`` on this machine, by whether the process that wrote one lives, and their size."""
    living = set(processes.alive_executors(conn, "mta"))
    held = {"living": 0, "waiting": 0}
    size = 0
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.is_dir() and not folder.name.startswith("."):
            held["living" if folder.name in living else "waiting"] += 1
            size += sum(_size(file) for file in folder.glob("*.log"))
    for state, count in held.items():
        yield Sample("midsource_journals", count, (state,))
    yield Sample("midsource_journal_bytes", size)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # settled and removed meanwhile
        return 0

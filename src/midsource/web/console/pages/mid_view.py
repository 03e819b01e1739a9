"""What a mid's pages show of accounts and deliveries: index probes an account, never a scan of messages or feed batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from midsource.doctor import book
from midsource.mid import counters
from midsource.model.delivery import FINAL, DeliveryState
from midsource.model.errors import NotFound
from midsource.store import processes
from midsource.store.database import Connection, scalar
from midsource.store.processes import ProcessRow
from midsource.web.console.pages.figures import SHOWN, Figures

PAGE_ROWS = 25
LATEST = 5
MAX_ACCOUNTS = 500
"""Marketing instances of one mid; each costs some index probes."""
COUNTED_BATCHES = 10_000
"""Feed batches an account has not read that are counted; more is 'at least'."""
UNREAD_AFTER = timedelta(hours=2)
"""The slowest reader comes hourly: results unread for longer are an alarm."""


@dataclass(frozen=True, slots=True)
class Line:
    """A delivery on this mid as lists show it."""

    account: str
    account_id: int
    id: int
    label: str
    state: int
    received_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    valid_until: datetime | None
    expected: int | None
    counted: Figures

    @property
    def is_final(self) -> bool:
        """Whether nothing changes it any more."""
        return DeliveryState(self.state) in FINAL and self.finished_at is not None


@dataclass(frozen=True, slots=True)
class Lines:
    """Some deliveries, newest first. ``older``: the number that the next page goes on below; None: there is none older."""

    deliveries: Sequence[Line]
    older: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """How far an account has read one stream. ``asked_at`` None: it never came back with a position."""

    stream: str
    asked_at: datetime | None
    unread: int
    oldest_at: datetime | None

    @property
    def is_more(self) -> bool:
        """Whether more is unread than was counted."""
        return self.unread > COUNTED_BATCHES


@dataclass(frozen=True, slots=True)
class Submitter:
    """A marketing instance that may submit to this mid, and how far it has read its results."""

    id: int
    name: str
    key_id: str
    active: bool
    created_at: datetime
    open_deliveries: int
    readings: Sequence[Reading]

    @property
    def seen_at(self) -> datetime | None:
        """When it last asked for results."""
        return max((reading.asked_at for reading in self.readings if reading.asked_at), default=None)

    def is_behind(self, now: datetime) -> bool:
        """Whether results have waited for longer than any reader that works would let them."""
        return any(reading.oldest_at and now - reading.oldest_at > UNREAD_AFTER for reading in self.readings)


@dataclass(frozen=True, slots=True)
class Overview:
    """The mid at a glance."""

    processes: Sequence[ProcessRow]
    deliveries: Sequence[Line]
    accounts: Sequence[Submitter]
    set_aside: int
    findings: int
    """How many of the doctor's findings that need somebody are open."""

    def has(self, kind: str) -> bool:
        """Tell whether a process of that kind lives."""
        return any(row.kind == kind and row.alive for row in self.processes)


_COLUMNS = "d.id, d.label, d.state, d.received_at, d.started_at, d.finished_at, d.valid_until, d.expected"


def overview(conn: Connection, now: datetime) -> Overview:
    """Read the state of this mid."""
    aside = scalar(conn, "select count(*) from (select from outcome_aside limit %s) a", (COUNTED_BATCHES,))
    return Overview(
        processes.listing(conn),
        lines(conn, None, LATEST).deliveries,
        accounts(conn),
        aside,
        book.needing_somebody(conn, now),
    )


def lines(conn: Connection, before: int | None, limit: int = PAGE_ROWS) -> Lines:
    """Return the newest deliveries of all accounts, or those with a number below ``before``."""
    rows = conn.execute(
        f"select a.name, a.id, d.* from (select id, name from account order by id limit %(accounts)s) a "  # noqa: S608 - constant
        f"cross join lateral (select {_COLUMNS} from delivery d where d.account_id = a.id "
        "  and (%(before)s::bigint is null or d.id < %(before)s) order by d.id desc limit %(limit)s) d "
        "order by d.id desc, a.id limit %(limit)s",
        {"accounts": MAX_ACCOUNTS, "before": before, "limit": limit + 1},
    ).fetchall()
    counted = _counts(conn, [(row[1], row[2]) for row in rows])
    found = [_line(row, counted[row[1], row[2]]) for row in rows[:limit]]
    return Lines(found, found[-1].id if len(rows) > limit else None)


def line(conn: Connection, account: str, delivery_id: int) -> Line:
    """Return one delivery. Raises NotFound."""
    row = conn.execute(
        f"select a.name, a.id, {_COLUMNS} from delivery d join account a on a.id = d.account_id "  # noqa: S608 - constant
        "where a.name = %s and d.id = %s",
        (account, delivery_id),
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no delivery {delivery_id} of {account[:60]!r} on this mid", "see the list")
    return _line(row, counters.totals(conn, row[1], delivery_id))


def accounts(conn: Connection) -> list[Submitter]:
    """Return every account with its readings, by name."""
    rows = conn.execute(
        "select a.id, a.name, a.key_id, a.active, a.created_at, "
        "(select count(*) from delivery d where d.account_id = a.id and d.finished_at is null and d.state >= 45) "
        "from account a order by a.name limit %s",
        (MAX_ACCOUNTS,),
    ).fetchall()
    found = conn.execute(
        """
        select a.id, s.stream, k.asked_at, u.n, u.oldest
          from (select id from account order by name limit %(accounts)s) a
         cross join unnest(array['deliveries', 'logs']) as s (stream)
          left join feed_ack k on k.account_id = a.id and k.stream = s.stream
         cross join lateral (
           select count(*)::int as n, min(b.created_at) as oldest from (
             select created_at from feed_batch b
              where (b.account_id, b.seq) > (a.id, coalesce(k.seq, 0)) and (b.account_id, b.seq) <= (a.id, %(last)s)
                and (s.stream = 'deliveries' or rows > 0) order by b.account_id, b.seq limit %(counted)s) b) u
        """,  # pairs: by seq alone the planner walks the other accounts' batches (8 s with 300 000 of them, measured)
        {"accounts": MAX_ACCOUNTS, "counted": COUNTED_BATCHES + 1, "last": 2**63 - 1},
    ).fetchall()
    readings: dict[int, list[Reading]] = {}
    for account, *values in found:
        readings.setdefault(account, []).append(Reading(*values))
    return [Submitter(row[0], row[1], row[2], row[3], row[4], row[5], readings.get(row[0], [])) for row in rows]


def _counts(conn: Connection, keys: Sequence[tuple[int, int]]) -> Mapping[tuple[int, int], Mapping[int, int]]:
    by_account: dict[int, list[int]] = {}
    for account_id, delivery_id in keys:
        by_account.setdefault(account_id, []).append(delivery_id)
    return {
        (account_id, delivery_id): counts
        for account_id, ids in by_account.items()
        for delivery_id, counts in counters.totals_of(conn, account_id, ids).items()
    }


def _line(row: Sequence[Any], totals: Mapping[int, int]) -> Line:
    counts = {state: max(0, totals.get(int(state), 0)) for state in SHOWN}
    figures = Figures(sum(counts.values()), counts, None)
    return Line(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], figures)

"""Checks of the instance's database: its upkeep, long transactions, locks, connections, ids, clock, partitions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from midsource.doctor.check import BOTH, HOURLY_SECONDS, Check
from midsource.doctor.facts import Facts
from midsource.model.finding import Seen, Severity, age
from midsource.model.ids import Month
from midsource.model.maintenance import Level
from midsource.store.database import Connection
from midsource.store.maintenance import status as upkeep_status
from midsource.store.migrate import DAYS_AHEAD, MONTHS_AHEAD

SHOWN = 20
OWN_CHECKS = frozenset({"long transaction", "connections", "numbers", "wraparound"})
"""Kinds of remarks that have checks of their own here, looked at more often."""
WRITES_FOR = timedelta(seconds=30)
"""A write transaction on a mid delays the batch it is in; design 5 names this limit."""
ANY_FOR = timedelta(minutes=5)
LOCKED_FOR = timedelta(seconds=30)
USED_WARNING, USED_ERROR = 0.8, 0.9
IDS_WARNING, IDS_ERROR = 0.5, 0.8
XID_WARNING, XID_ERROR = 500_000_000, 1_000_000_000
"""Autovacuum freezes from 200 million on; at 2 147 million the server refuses to write."""
SKEW = timedelta(seconds=30)
DURABLE = ["fsync", "full_page_writes", "synchronous_commit"]
"""Each of them on, or what was answered as done may be undone."""


def upkeep(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """What `maintenance status` says of bloat, dead rows, statistics, autovacuum, replication slots and disk: what does not wait is a warning, what the weekly run mends is for information."""
    status = upkeep_status.read(conn, now)
    mendable = {step.relation for step in status.steps}
    for remark in status.remarks:
        if remark.level is Level.NOTE or remark.kind in OWN_CHECKS:
            continue
        yield Seen(
            Severity.WARNING if remark.level is Level.NOW else Severity.INFO,
            evidence=f"{remark.subject}: {remark.wrong}.",
            cause=f"What it costs: {remark.costs}.",
            remedy=f"What is done about it: {remark.remedy}.",
            subject=f"{remark.kind} {remark.subject}",
            healable=remark.subject in mendable,
        )


def transactions(conn: Connection, facts: Facts, now: datetime) -> Iterator[Seen]:
    """Transactions open too long in this database: on a mid, one that writes for 30 s; any for five minutes."""
    rows = conn.execute(
        "select pid, application_name, state, xact_start, backend_xid is not null, left(query, 80), backend_type from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null and backend_type = 'client backend' "
        "and xact_start < clock_timestamp() - %s::interval order by xact_start limit %s",
        (WRITES_FOR, SHOWN),
    ).fetchall()
    for pid, application, state, since, writes, query, _ in rows:
        long = now - since > ANY_FOR
        if not long and not (writes and facts.instance.role == "mid"):
            continue
        yield Seen(
            Severity.WARNING,
            evidence=f"Server process {pid} ({application or 'no name'}) has a transaction open for {age(now - since)}, {state}{', it writes' if writes else ''}: {query}",
            cause="Nothing deleted since it began can be cleaned, and what it wrote delays who waits for it.",
            remedy=f"Find who that is; `select pg_terminate_backend({pid})` ends it. Ours end by themselves after a minute of silence.",
            subject=f"{application or 'unnamed'} {pid}",
            healable=long and str(state).startswith("idle in transaction"),
        )


def locks(conn: Connection, _facts: Facts, now: datetime) -> Iterator[Seen]:
    """Statements that wait for a lock for more than 30 s, and who holds it."""
    rows = conn.execute(
        "select pid, application_name, query_start, pg_blocking_pids(pid), left(query, 80) from pg_stat_activity where datname = current_database() "
        "and wait_event_type = 'Lock' and query_start < clock_timestamp() - %s::interval order by query_start limit %s",
        (LOCKED_FOR, SHOWN),
    ).fetchall()
    for pid, application, since, holders, query in rows:
        yield Seen(
            Severity.WARNING,
            evidence=f"{application or 'A session'} ({pid}) waits {age(now - since)} for a lock of {', '.join(map(str, holders)) or 'somebody'}: {query}",
            cause="Another transaction holds the rows or the table: maintenance by hand, a forgotten psql, a migration.",
            remedy="`midsource ps --who`; end the one that holds it.",
            subject=f"{application or 'unnamed'} {pid}",
        )


def connections(conn: Connection, _facts: Facts, _now: datetime) -> Iterator[Seen]:
    """Connections of the whole server against what it allows: 80 % is a warning, 90 % an error."""
    row = conn.execute(
        "select (select count(*) from pg_stat_activity where backend_type = 'client backend'), current_setting('max_connections')::int - "
        "current_setting('superuser_reserved_connections')::int - coalesce(current_setting('reserved_connections', true), '0')::int"
    ).fetchone()
    assert row is not None
    used, allowed = row
    if used >= USED_WARNING * allowed:
        yield Seen(
            Severity.ERROR if used >= USED_ERROR * allowed else Severity.WARNING,
            evidence=f"{used} of {allowed} connections of the server are used.",
            cause="More processes than it was made for, or others use the same server. Without one a beat is missed and a page waits.",
            remedy="`midsource ps --who` says who holds them; raise max_connections or run fewer processes.",
        )


def ids(conn: Connection, _facts: Facts, _now: datetime) -> Iterator[Seen]:
    """Sequences that have used half of their numbers, and how far the server's transaction ids are from being frozen."""
    rows = conn.execute(
        "select sequencename, last_value, max_value from pg_sequences where schemaname = 'public' and not cycle and last_value is not null "
        "and last_value > %s * max_value order by last_value::float8 / max_value desc limit %s",
        (IDS_WARNING, SHOWN),
    ).fetchall()
    for name, last, most in rows:
        yield Seen(
            Severity.ERROR if last > IDS_ERROR * most else Severity.WARNING,
            evidence=f"The sequence {name} stands at {last} of {most}.",
            cause="When it is used up, every insert into its table fails.",
            remedy="Plan its change to bigint now; report it: ours are bigint.",
            subject=name,
        )
    row = conn.execute("select age(datfrozenxid) from pg_database where datname = current_database()").fetchone()
    old = row[0] if row else 0
    if old > XID_WARNING:
        yield Seen(
            Severity.ERROR if old > XID_ERROR else Severity.WARNING,
            evidence=f"The oldest transaction id of this database is {old} transactions old; at 2 147 000 000 the server stops writing.",
            cause="Vacuum cannot freeze: a long transaction, a replication slot or a prepared transaction holds it, or autovacuum is off.",
            remedy="See `database.transactions`; then `vacuumdb --freeze` of this database in a quiet hour.",
            subject="transaction ids",
        )


def clock(conn: Connection, facts: Facts, _now: datetime) -> Iterator[Seen]:
    """The clock of the database server more than 30 s apart from this machine's."""
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    skew = row[0] - facts.clock.now()
    if abs(skew) > SKEW:
        direction = "ahead of" if skew > timedelta(0) else "behind"
        yield Seen(
            Severity.WARNING,
            evidence=f"The database's clock is {age(abs(skew))} {direction} this machine's.",
            cause="One of the two keeps no time by NTP. Leases and beats go by the database's clock, ticks by the worker's.",
            remedy="`timedatectl` on both machines; synchronise both to the same source.",
        )


def partitions(conn: Connection, facts: Facts, now: datetime) -> Iterator[Seen]:
    """Partitions that should be there ahead of time: this month and two more, on a mid the next three days. This month's or today's missing is critical."""
    wanted: list[tuple[str, bool]] = []
    month = Month.of(now)
    for ahead in range(MONTHS_AHEAD + 1):
        wanted.append((f"{'message' if facts.instance.role == 'mid' else 'broad_log'}_{month}", ahead == 0))
        month = month.next()
    if facts.instance.role == "mid":
        wanted += [(f"outcome_{now + timedelta(days=ahead):%Y%m%d}", ahead == 0) for ahead in range(DAYS_AHEAD + 1)]
    rows = conn.execute(
        "select n from unnest(%s::text[]) n where to_regclass(n) is null", ([name for name, _ in wanted],)
    )
    absent = {name for (name,) in rows.fetchall()}
    if absent:
        needed_now = [name for name, now_needed in wanted if now_needed and name in absent]
        yield Seen(
            Severity.CRITICAL if needed_now else Severity.WARNING,
            evidence=f"Missing: {', '.join(sorted(absent))}.",
            cause="Rows of today cannot be written: no worker leads and makes them, or it may not create tables."
            if needed_now
            else "Nothing fails yet: no worker leads and makes them, or it may not create tables.",
            remedy="`midsource doctor --heal --only database.partitions` makes them; see that a worker lives.",
            healable=True,
        )


def durability(conn: Connection, _facts: Facts, _now: datetime) -> Iterator[Seen]:
    """Settings of the server by which a COMMIT may be forgotten: fsync, synchronous_commit or full_page_writes off."""
    rows = conn.execute("select name from pg_settings where name = any(%s) and setting = 'off' order by 1", (DURABLE,))
    if off := [name for (name,) in rows]:
        yield Seen(
            Severity.ERROR,
            evidence=f"Off for this database: {', '.join(off)}.",
            cause="What was committed may be forgotten when the server or its machine stops, so a message may leave twice and no record say so.",
            remedy="Switch it on in postgresql.conf, or `alter role … reset` and `alter database … reset` it; then restart midsource.",
        )


CHECKS = (
    Check("database.upkeep", upkeep, BOTH, Severity.WARNING, ("F01", "F117", "F131"), "`midsource maintenance status`, then let maintenance do it.", HOURLY_SECONDS, 10.0),
    Check("database.transactions", transactions, BOTH, Severity.WARNING, ("F01", "F43", "F131"), "Find and end the transaction."),
    Check("database.locks", locks, BOTH, Severity.WARNING, ("F43", "F95"), "End whoever holds the lock."),
    Check("database.connections", connections, BOTH, Severity.ERROR, ("F08", "F126"), "Run fewer processes, or allow more connections."),
    Check("database.ids", ids, BOTH, Severity.ERROR, ("F14", "F44", "F110", "F111", "F125"), "Plan the change now.", HOURLY_SECONDS),
    Check("database.clock", clock, BOTH, Severity.WARNING, ("F22",), "Synchronise both machines by NTP."),
    Check("database.partitions", partitions, BOTH, Severity.CRITICAL, ("F115", "F123"), "Let the doctor make them."),
    Check("database.durability", durability, BOTH, Severity.ERROR, ("F122",), "Let the server keep what it has committed."),
)  # fmt: skip

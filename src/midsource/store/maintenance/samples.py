"""One sample a day of sizes and of numbers that run out, and the forecast drawn from them.

The workflow `doctor` takes it; a day that has one gets no second. Small: the database, the disk, the ``LARGEST`` tables
and the sequences, kept for ``KEEP_DAYS``: some 60 000 rows.
"""

from __future__ import annotations

from datetime import UTC, datetime

from midsource.model.maintenance import Measures
from midsource.policy.forecast import PACE_DAYS, Forecast, Sample, forecast
from midsource.store.database import Connection, scalar
from midsource.store.maintenance.measuring import measure

LARGEST = 100
KEEP_DAYS = 400
LEAST_SHARE = 0.01
"""A number less used than this has no sample: it does not run out."""


def take_daily(conn: Connection, now: datetime) -> int:
    """Take today's sample unless there is one; return how many values. On an autocommit connection."""
    today = now.astimezone(UTC).date()
    if scalar(
        conn, "select exists (select from size_sample where kind = 'database' and name = '' and day = %s)", (today,)
    ):
        return 0
    return take(conn, measure(conn, now))


def take(conn: Connection, measures: Measures) -> int:
    """Store the sample of the day of ``measures``, once, and forget old ones; return how many values were new."""
    day = measures.at.astimezone(UTC).date()
    server = measures.server
    values: list[tuple[str, str, int, int | None]] = [
        ("number", number.name, number.used, number.most)
        for number in server.numbers
        if number.share >= LEAST_SHARE and not number.cycles
    ]
    sized = [(table.bytes + table.toast_bytes + table.index_bytes, table.name) for table in measures.tables]
    values += [("relation", name, size, None) for size, name in sorted(sized, reverse=True)[:LARGEST] if size]
    if server.disk is not None:
        values.append(("disk free", "", server.disk.free_bytes, server.disk.total_bytes))
    values.append(("database", "", server.database_bytes, None))
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(
            "insert into size_sample (kind, name, day, at, value, most) values (%s, %s, %s, %s, %s, %s) on conflict do nothing",
            [(kind, name, day, measures.at, value, most) for kind, name, value, most in values],
        )
        new = cursor.rowcount
        cursor.execute("delete from size_sample where day < %s::date - %s", (day, KEEP_DAYS))
    return new


def forecasts(conn: Connection, now: datetime) -> tuple[Forecast, ...]:
    """Return the forecast of everything that has a sample of the last days: the nearest end first, then the fastest growth."""
    rows = conn.execute(
        "select kind, name, at, value, most from size_sample where at > %s - make_interval(days => %s) order by kind, name, day",
        (now, PACE_DAYS + 1),
    ).fetchall()
    found: dict[tuple[str, str], list[Sample]] = {}
    for kind, name, at, value, most in rows:
        found.setdefault((kind, name), []).append(Sample(at, value, most))
    drawn = [forecast(kind, name or kind, samples) for (kind, name), samples in found.items()]
    return tuple(
        sorted(drawn, key=lambda one: (one.days_left if one.days_left is not None else 1e9, -abs(one.per_day or 0)))
    )

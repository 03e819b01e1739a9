"""What is wrong with a database, worst first: each with what it costs and what is or can be done about it. Pure.

*Now* is what does not wait for the weekly run: it makes `maintenance status` exit 3. *Soon* is what that run mends, or an
operator within days. A *note* is worth knowing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from midsource.model.maintenance import Act, IndexMeasure, Level, Measures, Remark, Step, TableMeasure
from midsource.policy.bloat import table_waste
from midsource.policy.checks import spoken
from midsource.policy.forecast import Forecast
from midsource.policy.maintenance import MIN_BYTES, Settings, rows_of, seconds, waste, why_analyze
from midsource.policy.sizes import count, percent, size

LAG_NOW = 4.0
"""Dead rows beyond this many times autovacuum's threshold: it does not keep up, or is held up."""
TRANSACTION_NOW_SECONDS = 3_600
"""Every table gathers dead rows behind it; nothing of ours is open for an hour."""
TRANSACTION_SOON_SECONDS = 600
WRAPAROUND = 2_000_000_000
"""The server refuses writes about here (2^31 less 3 million)."""
WRAPAROUND_SHARES = (0.5, 0.25)
NUMBER_SHARES = (0.8, 0.5)
"""Used part of a sequence or integer column: now, soon (F110, F125)."""
CONNECTION_SHARES = (0.9, 0.75)
"""In use of what the server allows: now, soon (F126)."""
SLOT_BYTES = (16_000_000_000, 2_000_000_000)
"""WAL kept for a slot: now, soon."""
DISK_SHARES = (0.05, 0.15)
"""Free part of the disk: now, soon."""
FULL_DAYS = (7.0, 30.0)
"""Until something is full or used up, by forecast: now, soon."""
UNUSED_DAYS = 7
"""A week of use says which indexes are read: weekly workflows ran in it."""
SCANS_BYTES = 67_108_864
"""Reading 64 MB whole is felt; smaller tables are best read so."""
SCANS = 100
SCANNED_SHARE = 0.2
"""Of all scans of a table, read it whole."""
TABLE_WASTE_SHARE = 0.5
LISTED = 500
"""Remarks of one status: the worst ones."""


@dataclass(frozen=True, slots=True)
class Unmended:
    """An action that did not succeed, and none after it."""

    act: str
    relation: str
    error: str
    at: datetime


def remarks(
    measures: Measures,
    steps: Sequence[Step],
    settings: Settings,
    forecasts: Iterable[Forecast] = (),
    unmended: Iterable[Unmended] = (),
) -> tuple[Remark, ...]:
    """Return everything there is to say, worst first."""
    tables = {table.name: table for table in measures.tables}
    found = [_of_step(step, settings, tables.get(step.table)) for step in steps]
    found += [*_autovacuum(measures), *_heaps(measures), *_indexes(measures, tables), *_scans(measures)]
    found += [
        *_transactions(measures),
        *_ages(measures),
        *_numbers(measures),
        *_server(measures),
        *_forecasts(forecasts),
    ]
    found += [_failed(one) for one in unmended]
    levels = list(Level)
    found.sort(key=lambda remark: (levels.index(remark.level), -remark.weight, remark.subject))
    return tuple(found[:LISTED])


def _failed(one: Unmended) -> Remark:
    return Remark(
        Level.SOON, "failed action", one.relation, f"{one.act} on {one.at:%Y-%m-%d %H:%M} did not succeed: {one.error}",
        "what it was to mend goes on", "remove the cause, then `midsource maintenance vacuum` or `reindex` it",
    )  # fmt: skip


def _of_step(step: Step, settings: Settings, table: TableMeasure | None) -> Remark:
    kinds = {Act.ANALYZE: "statistics", Act.REINDEX: "index bloat", Act.DROP: "left-over index"}
    kind = kinds.get(step.act, "dead rows")
    if step.act is Act.ANALYZE:
        costs = "plans are made by statistics that do not hold any more"
    elif step.act is Act.DROP:
        costs = f"{size(step.gain_bytes)}, and a write more for each row"
    elif step.act is Act.REINDEX:
        costs = f"{size(step.gain_bytes)} of disk and memory"
    else:
        costs = f"{size(step.gain_bytes)} of {size(table.bytes if table else 0)} is read for nothing"
    effort = f"reads {size(step.read_bytes)}, writes {size(step.write_bytes)}, about {spoken(max(1, seconds(step)))}"
    if settings.advises:
        will = f"advised to the DBA: {step.act} ({effort})"
    elif step.why_not:
        will = f"{step.act} is due but not now: {step.why_not}"
    else:
        will = f"{step.act} by the next run ({effort})"
    level = Level.NOW if step.is_urgent else Level.SOON
    if table is not None and table.bytes < MIN_BYTES and not step.freezes and not step.is_urgent:
        level = Level.NOTE  # one read, with or without
    return Remark(level, kind, step.relation, step.reason, costs, will, float(step.gain_bytes))


def _autovacuum(measures: Measures) -> Iterable[Remark]:
    if not measures.server.autovacuum_on:
        yield Remark(
            Level.NOW, "autovacuum", "autovacuum", "it is off for the whole server", "dead rows gather in every table",
            "`set autovacuum = on`", 1e18,
        )  # fmt: skip
    for table in measures.tables:
        if not table.has_autovacuum and measures.server.autovacuum_on and not table.is_partitioned:
            yield Remark(
                Level.SOON, "autovacuum", table.name, "it is off for this table", "dead rows gather until the weekly run",
                f"`alter table {table.name} reset (autovacuum_enabled)`", float(table.bytes),
            )  # fmt: skip
        if table.dead > table.vacuum_threshold and table.bytes >= MIN_BYTES:
            times = table.dead / max(1.0, table.vacuum_threshold)
            last = f"last vacuum {table.vacuumed_at:%Y-%m-%d %H:%M}" if table.vacuumed_at else "never vacuumed"
            level = Level.NOW if times >= LAG_NOW else Level.NOTE
            yield Remark(
                level, "autovacuum lag", table.name,
                f"{count(table.dead)} dead rows, and autovacuum acts at {count(table.vacuum_threshold)}; {last}",
                "reads get slower until it comes",
                "look for a long transaction, or `midsource maintenance vacuum` it", float(table.dead),
            )  # fmt: skip


def _heaps(measures: Measures) -> Iterable[Remark]:
    for table in measures.tables:
        wasted = table_waste(table)
        if wasted is None or table.bytes < MIN_BYTES or why_analyze(table) or wasted < TABLE_WASTE_SHARE * table.bytes:
            continue
        how = "measured" if table.free is not None else "estimated"
        yield Remark(
            Level.NOTE, "table bloat", table.name,
            f"{percent(wasted / table.bytes)} of its {size(table.bytes)} holds no row ({how})",
            f"{size(wasted)} of disk, filled again by new rows",
            "nothing by itself; giving it back takes VACUUM FULL or pg_repack by the DBA, with the processes stopped",
            float(wasted),
        )  # fmt: skip


def _indexes(measures: Measures, tables: dict[str, TableMeasure]) -> Iterable[Remark]:
    since = measures.server.stats_since
    age = measures.at - since if since is not None else None
    for index in measures.indexes:
        table = tables[index.table]
        if not index.is_valid:
            continue
        if index.bytes > table.bytes >= MIN_BYTES and (waste(index, table) or 0) < MIN_BYTES:
            yield Remark(
                Level.NOTE, "large index", index.name, f"{size(index.bytes)}, its table {size(table.bytes)}",
                "writes and memory", "none of it is waste: see whether it is needed", float(index.bytes),
            )  # fmt: skip
        if index.enforces or index.scans or index.bytes < MIN_BYTES or table.is_partitioned:
            continue
        if age is None or age >= timedelta(days=UNUSED_DAYS):
            yield _unused(index, since, age)


def _unused(index: IndexMeasure, since: datetime | None, age: timedelta | None) -> Remark:
    if since and age:
        wrong = f"not read once in {spoken(age.total_seconds())}, since {since:%Y-%m-%d}"
    else:
        wrong = "not read once since the database was made"
    return Remark(
        Level.NOTE, "unused index", index.name,
        f"{wrong}; last read {index.scanned_at:%Y-%m-%d}" if index.scanned_at else wrong,
        f"{size(index.bytes)}, and a write for each row of {index.table}",
        "look whether a monthly report reads it before you drop it", float(index.bytes),
    )  # fmt: skip


def _scans(measures: Measures) -> Iterable[Remark]:
    since = measures.server.stats_since
    begin = f"{since:%Y-%m-%d %H:%M}" if since else "the database was made"
    for table in measures.tables:
        all_scans = table.sequential_scans + table.index_scans
        if table.bytes < SCANS_BYTES or table.sequential_scans < SCANS or rows_of(table) <= 0:
            continue
        if table.sequential_scans < SCANNED_SHARE * all_scans:
            continue
        read = table.sequential_rows / table.sequential_scans
        yield Remark(
            Level.NOTE, "missing index", table.name,
            f"read whole {count(table.sequential_scans)} times since {begin}, {count(read)} rows each",
            f"each time {size(table.bytes)} are read", "see the slowest statements (`delivery explain`) for the column to index",
            float(table.sequential_rows),
        )  # fmt: skip


def _transactions(measures: Measures) -> Iterable[Remark]:
    for found in measures.server.transactions:
        level = _at_least(found.seconds, (TRANSACTION_NOW_SECONDS, TRANSACTION_SOON_SECONDS))
        end = f"`rollback prepared` by {found.who}" if found.pid == 0 else f"`select pg_terminate_backend({found.pid})`"
        yield Remark(
            level, "long transaction", found.who, f"it is open for {spoken(found.seconds)}, {found.doing}",
            "no row that died since it began can be removed, in any table", end, found.seconds,
        )  # fmt: skip


def _ages(measures: Measures) -> Iterable[Remark]:
    server = measures.server
    for kind, age in (("transaction ids", server.transaction_age), ("multixact ids", server.multixact_age)):
        share = age / WRAPAROUND
        level = _at_least(share, WRAPAROUND_SHARES)
        if level is Level.NOTE:
            continue
        oldest = max(measures.tables, key=lambda table: table.transaction_age, default=None)
        wrong = f"{percent(share)} used: the oldest is {count(age)} back"
        yield Remark(
            level, "wraparound", kind,
            wrong if oldest is None else f"{wrong}; the oldest rows are in {oldest.name}",
            "at 100 % the server refuses every write", "vacuum freezes them; look for what holds it up", share,
        )  # fmt: skip


def _numbers(measures: Measures) -> Iterable[Remark]:
    for number in measures.server.numbers:
        level = _at_least(number.share, NUMBER_SHARES)
        if number.cycles or level is Level.NOTE:
            continue
        yield Remark(
            level, "numbers", number.name, f"{percent(number.share)} of its numbers are used: {count(number.used)} of {count(number.most)}",
            "at 100 % every insert fails (F125)", "widen the column to bigint before that", number.share,
        )  # fmt: skip


def _server(measures: Measures) -> Iterable[Remark]:
    server = measures.server
    used = server.connections / max(1, server.connections_allowed)
    level = _at_least(used, CONNECTION_SHARES)
    if level is not Level.NOTE:
        yield Remark(
            level, "connections", "server", f"{server.connections} of {server.connections_allowed} are in use",
            "the next process is refused", "see `midsource ps --who`; raise max_connections or run fewer processes", used,
        )  # fmt: skip
    if server.connections_budget > server.connections_allowed:
        yield Remark(
            Level.SOON, "connections", "budget",
            f"the processes may hold {server.connections_budget}, the server allows {server.connections_allowed}",
            "under load some are refused (F126)", "raise max_connections or run fewer processes", used,
        )  # fmt: skip
    for slot in server.slots:
        level = _at_least(slot.held_bytes or 0, SLOT_BYTES)
        level = Level.NOW if slot.status == "lost" else level
        if level is Level.NOTE and slot.is_active:
            continue
        yield Remark(
            level, "replication slot", slot.name,
            f"{'active' if slot.is_active else 'nobody reads it'}, {size(slot.held_bytes or 0)} of WAL kept {slot.status}",
            "the disk fills until its reader comes", f"start its reader, or `select pg_drop_replication_slot('{slot.name}')`",
            float(slot.held_bytes or 0),
        )  # fmt: skip
    if server.disk is not None:
        free = server.disk.free_bytes / max(1, server.disk.total_bytes)
        level = _at_least(-free, (-DISK_SHARES[0], -DISK_SHARES[1]))
        if level is not Level.NOTE:
            yield Remark(
                level, "disk", "server", f"{percent(free)} of it is free: {size(server.disk.free_bytes)}",
                "a full disk stops every write", "free space, or move the database", 1 - free,
            )  # fmt: skip


def _forecasts(forecasts: Iterable[Forecast]) -> Iterable[Remark]:
    for forecast in forecasts:
        if forecast.days_left is None:
            continue
        level = _at_least(-forecast.days_left, (-FULL_DAYS[0], -FULL_DAYS[1]))
        if level is not Level.NOTE:
            yield Remark(
                level, "forecast", forecast.name, forecast.sentence, "then writes fail",
                "free space" if forecast.kind == "disk free" else "widen the column to bigint before that",
                1 / max(0.1, forecast.days_left),
            )  # fmt: skip


def _at_least(value: float, bounds: tuple[float, float]) -> Level:
    """Return NOW from the first bound on, SOON from the second, else NOTE."""
    return Level.NOW if value >= bounds[0] else Level.SOON if value >= bounds[1] else Level.NOTE

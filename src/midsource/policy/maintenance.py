"""What maintenance does, decided from measures: which table or index, why, at what cost and gain, in which order, and why not now.

Small first, because one large table must not keep the others waiting, and within a table its rows before its indexes: an
index rebuilt before the dead rows are gone would hold them again. Never VACUUM FULL, never a lock that senders or readers
wait for: every act takes SHARE UPDATE EXCLUSIVE; giving pages back to the disk takes more for a moment, so it is asked of
past partitions only. What a long transaction would make useless is put off and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum

from midsource.model.maintenance import Act, IndexMeasure, Measures, OpenTransaction, Step, TableMeasure
from midsource.policy.bloat import index_waste
from midsource.policy.checks import spoken
from midsource.policy.low_activity import LowActivity
from midsource.policy.sizes import count, percent, size

DEAD_ROWS = 1_000
"""Fewer dead rows are not worth a visit; autovacuum takes them."""
DEAD_SHARE = 0.1
"""Half of what autovacuum waits for (0.2): the weekly run is to leave clean tables behind."""
URGENT_DEAD_SHARE = 0.5
"""Every second row read is dead: reading takes twice as long, which a preparation feels (F01)."""
ANALYZE_SHARE = 0.1
"""Autovacuum's own measure: statistics over which a tenth of the rows went are old."""
PARENT_DAYS = 6
"""Autovacuum never analyses a partitioned parent; a weekly run does, whatever minute it began at."""
MIN_BYTES = 8_388_608
"""An index wasting less than 8 MB is read from memory anyway."""
WASTE_SHARE = 0.4
"""The field rebuilds above 40 % fragmentation; estimates err by up to 20 %."""
URGENT_WASTE_SHARE = 0.6
"""And where the index outgrew its table (F131)."""
FREEZE_SHARE = 0.75
"""Of `autovacuum_freeze_max_age`: before the server begins its own forced vacuum, at an hour it chooses."""
LONG_SECONDS = 600
"""A transaction older than the longest statement of ours: nothing that died since it began can be removed."""
ANALYZE_BYTES = 245_760_000
"""ANALYZE reads 30 000 pages of a table at most."""
BYTES_PER_SECOND = 50_000_000
"""What a slow disk does beside other work: expected seconds err towards too long."""
DISK_RESERVE_SHARE = 0.05
"""Of the disk stays free while an index is built beside itself."""
_DATED = re.compile(r"_(\d{6}|\d{8})$")
_LEFT_OVER = re.compile(r"_cc(new|old)\d*$")


class Statistics(IntEnum):
    """The field's option `XtkCleanup_NoStats`, for tables: vacuum and analyze, neither, or analyze alone."""

    FULL = 0
    NONE = 1
    ANALYZE_ONLY = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator sets. ``advises``: nothing is executed; the plan is kept for the DBA."""

    advises: bool = False
    window: LowActivity = LowActivity()  # noqa: RUF009 - frozen
    statistics: Statistics = Statistics.FULL


def rows_of(table: TableMeasure) -> float:
    """Return the rows that a table has now: as counted where the statistics are old, else as analysed; -1: not known."""
    if table.rows < 0 or table.modified > ANALYZE_SHARE * table.rows:
        return table.live if table.live or table.modified else table.rows
    return table.rows


def dead_share(table: TableMeasure) -> float:
    """Return the share of dead rows among all, 0 to 1."""
    return table.dead / max(1.0, table.dead + max(0.0, rows_of(table)))


def waste(index: IndexMeasure, table: TableMeasure) -> int | None:
    """Return the bytes of an index that are not needed for the rows its table has now; None: not known."""
    rows = index.rows if index.rows < 0 or table.rows <= 0 else index.rows * rows_of(table) / table.rows
    return index_waste(index, rows if table.rows > 0 else rows_of(table))


def seconds(step: Step) -> float:
    """Return how long a step takes at most, by expectation."""
    return step.cost_bytes / BYTES_PER_SECOND + 1


def plan(measures: Measures, settings: Settings, *, by: str = "") -> tuple[Step, ...]:
    """Return every step that is due, in order; ``why_not`` says why one is not done now.

    ``by`` names the operator who ordered the run: then the hours of low activity do not hold.
    """
    tables = {table.name: table for table in measures.tables}
    steps = [*_of_tables(measures, settings.statistics), *_of_indexes(measures, tables)]
    ordered = sorted(steps, key=lambda step: _order(step, steps))
    return tuple(replace(step, why_not=obstacle(step, measures, settings, by=by)) for step in ordered)


def of(measures: Measures, names: Iterable[str], act: Act) -> tuple[Step, ...]:
    """Return what an operator asked for by name, due or not: vacuum of tables, or reindex of tables' or single indexes."""
    tables = {table.name: table for table in measures.tables}
    wanted = set(names)
    if act is Act.REINDEX:
        return tuple(
            _reindex(index, tables[index.table], "asked for")
            for index in sorted(measures.indexes, key=lambda index: index.bytes)
            if (index.name in wanted or _family(tables[index.table]) & wanted) and index.is_valid
        )
    chosen = [table for table in measures.tables if _family(table) & wanted and not table.is_partitioned]
    return tuple(
        _vacuum(table, act, "asked for", measures.at) for table in sorted(chosen, key=lambda table: table.bytes)
    )


def obstacle(step: Step, measures: Measures, settings: Settings, *, by: str = "") -> str:
    """Return why ``step`` is not to be done now, '' where nothing forbids it."""
    if step.why_not:
        return step.why_not
    longest = _longest(measures.server.transactions)
    if longest is not None and step.act not in (Act.ANALYZE, Act.DROP):
        verb = "would wait for it" if step.act is Act.REINDEX else "could not remove what died since"
        return (
            f"a transaction of {longest.who}, pid {longest.pid}, is open for {spoken(longest.seconds)} and this {verb}"
        )
    disk = measures.server.disk
    if step.act is Act.REINDEX and disk is not None:
        needed = 2 * step.write_bytes + DISK_RESERVE_SHARE * disk.total_bytes
        if disk.free_bytes < needed:
            return (
                f"the disk has {size(disk.free_bytes)} free, and building the index beside itself needs {size(needed)}"
            )
    return "" if by else _hours(step, settings.window, measures.at)


def waits_for_window(step: Step, measures: Measures, settings: Settings) -> bool:
    """Tell whether nothing but the hour keeps ``step`` from being done, and some window holds it."""
    if not step.why_not or seconds(step) > settings.window.minutes * 60:
        return False
    return not obstacle(replace(step, why_not=""), measures, settings, by="anybody")


def waits_for_transaction(step: Step, measures: Measures) -> bool:
    """Tell whether a long transaction keeps ``step`` from being done: it may end within the hour."""
    return (
        step.act in (Act.VACUUM, Act.VACUUM_ANALYZE, Act.REINDEX) and _longest(measures.server.transactions) is not None
    )


def _hours(step: Step, window: LowActivity, now: datetime) -> str:
    if seconds(step) > window.minutes * 60:
        return (
            f"it takes about {spoken(seconds(step))}, which no window {window} ({window.zone}) holds: widen the window, "
            "or order it by name"
        )
    if not window.is_open(now):
        return f"it waits for the window {window} ({window.zone})"
    if now + timedelta(seconds=seconds(step)) > window.closes_at(now):
        return f"it takes about {spoken(seconds(step))}, and the window {window} ({window.zone}) closes before: the next one"
    return ""


def _of_tables(measures: Measures, statistics: Statistics) -> list[Step]:
    children: dict[str, int] = {}
    for table in measures.tables:
        children[table.parent] = children.get(table.parent, 0) + table.bytes
    found = []
    for table in measures.tables:
        if not table.is_mine:
            continue
        if table.is_partitioned:
            step = _parent(table, measures, children.get(table.name, 0))
            found += [step] if step is not None and statistics is not Statistics.NONE else []
            continue
        why = _why_vacuum(table) if statistics is Statistics.FULL else ""
        stale = "" if statistics is Statistics.NONE else why_analyze(table)
        freeze = _why_freeze(table, measures.server.freeze_age)
        if why or freeze:
            act = Act.VACUUM_ANALYZE if stale else Act.VACUUM
            reason = "; ".join(reason for reason in (freeze, why, stale) if reason)
            found.append(_vacuum(table, act, reason, measures.at, freezes=bool(freeze)))
        elif stale:
            found.append(_vacuum(table, Act.ANALYZE, stale, measures.at))
    return found


def _why_vacuum(table: TableMeasure) -> str:
    if table.dead < DEAD_ROWS or (dead_share(table) < DEAD_SHARE and table.dead <= table.vacuum_threshold):
        return ""
    return f"{count(table.dead)} dead rows, {percent(dead_share(table))} of all"


def why_analyze(table: TableMeasure) -> str:
    """Return why a table's statistics are to be renewed, '' where they are good."""
    if table.analyzed_at is None and table.rows < 0:
        return "never analysed" if table.bytes > 0 else ""
    if table.modified > max(table.analyze_threshold, ANALYZE_SHARE * max(0.0, table.rows)):
        return f"{count(table.modified)} rows changed since it was analysed"
    return ""


def _why_freeze(table: TableMeasure, freeze_age: int) -> str:
    if table.transaction_age < FREEZE_SHARE * freeze_age:
        return ""
    return (
        f"its oldest row is {count(table.transaction_age)} transactions old, forced vacuum comes at {count(freeze_age)}"
    )


def _parent(table: TableMeasure, measures: Measures, size_of_children: int) -> Step | None:
    if not size_of_children:
        return None
    since = measures.at - table.analyzed_at if table.analyzed_at is not None else None
    if since is not None and since < timedelta(days=PARENT_DAYS):
        return None
    read = min(size_of_children, ANALYZE_BYTES)
    if since is None:
        reason = "statistics over all partitions were never taken, and autovacuum does not take them"
    else:
        reason = (
            f"statistics over all partitions are {spoken(since.total_seconds())} old, and autovacuum does not take them"
        )
    return Step(Act.ANALYZE, table.name, table.name, reason, read, 0, only=measures.server.version >= 18)


def _vacuum(table: TableMeasure, act: Act, reason: str, now: datetime, *, freezes: bool = False) -> Step:
    sampled = min(table.bytes, ANALYZE_BYTES)
    if act is Act.ANALYZE:
        return Step(act, table.name, table.name, reason, sampled, 0)
    share = dead_share(table)
    whole = table.bytes + table.toast_bytes
    return Step(
        act,
        table.name,
        table.name,
        reason,
        read_bytes=whole + table.index_bytes + (sampled if act is Act.VACUUM_ANALYZE else 0),
        write_bytes=whole if freezes else round(share * (whole + table.index_bytes)),
        gain_bytes=round(share * table.bytes),
        is_urgent=share >= URGENT_DEAD_SHARE and table.bytes >= MIN_BYTES,
        truncates=is_past(table.name, now),
        freezes=freezes,
    )


def _of_indexes(measures: Measures, tables: Mapping[str, TableMeasure]) -> list[Step]:
    found = []
    for index in measures.indexes:
        table = tables[index.table]
        if not index.is_mine:
            continue
        if is_left_over(index):
            reason = "a rebuild was cut and left it invalid: every write keeps it up and nobody reads it"
            found.append(Step(Act.DROP, index.name, table.name, reason, 0, 0, index.bytes, is_urgent=True))
            continue
        wasted = waste(index, table)
        if index.is_valid and wasted is not None and wasted >= MIN_BYTES and wasted >= WASTE_SHARE * index.bytes:
            reason = f"{percent(wasted / index.bytes)} of its {size(index.bytes)} is not needed"
            if index.bytes > table.bytes:
                reason = f"{reason}, and it is larger than its table ({size(table.bytes)})"
            found.append(_reindex(index, table, reason))
    return found


def _reindex(index: IndexMeasure, table: TableMeasure, reason: str) -> Step:
    wasted = waste(index, table) or 0
    return Step(
        Act.REINDEX,
        index.name,
        table.name,
        reason,
        read_bytes=2 * table.bytes,
        write_bytes=max(0, index.bytes - wasted),
        gain_bytes=wasted,
        is_urgent=wasted >= MIN_BYTES and index.bytes > table.bytes and wasted >= URGENT_WASTE_SHARE * index.bytes,
    )


def is_left_over(index: IndexMeasure) -> bool:
    """Tell whether a cut REINDEX CONCURRENTLY left this index behind."""
    return not index.is_valid and _LEFT_OVER.search(index.name) is not None


def is_past(name: str, now: datetime) -> bool:
    """Tell whether ``name`` is the partition of a month or day before the last month's: hardly anybody writes to it."""
    match = _DATED.search(name)
    if match is None:
        return False
    before = (now.replace(day=1) - timedelta(days=1)).strftime("%Y%m")
    return match[1][:6] < before


def _order(step: Step, steps: Iterable[Step]) -> tuple[int, int, int]:
    """Leftovers first, then by cost; an index after its table."""
    before = max(
        (other.cost_bytes for other in steps if other.table == step.table and other.act not in (Act.REINDEX, Act.DROP)),
        default=0,
    )
    if step.act is Act.DROP:
        return (0, 0, 0)
    return (1, max(step.cost_bytes, before if step.act is Act.REINDEX else 0), int(step.act is Act.REINDEX))


def _longest(transactions: Iterable[OpenTransaction]) -> OpenTransaction | None:
    long = [found for found in transactions if found.seconds >= LONG_SECONDS]
    return max(long, key=lambda found: found.seconds, default=None)


def _family(table: TableMeasure) -> set[str]:
    """Return the names by which an operator means this table: its own and its parent's."""
    return {table.name, table.parent} - {""}

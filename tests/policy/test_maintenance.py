from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from midsource.model.maintenance import (
    Act,
    Disk,
    IndexMeasure,
    Level,
    Measures,
    Numbers,
    OpenTransaction,
    Rebuilt,
    Remark,
    Server,
    Shape,
    Slot,
    TableMeasure,
)
from midsource.policy import maintenance
from midsource.policy.forecast import Forecast
from midsource.policy.low_activity import parse
from midsource.policy.maintenance import Settings, Statistics
from midsource.policy.maintenance_remarks import remarks

NIGHT = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
NOON = NIGHT.replace(hour=12)
SERVER = Server(
    version=18, database_bytes=10**9, connections=10, connections_allowed=100, connections_budget=50, transaction_age=1_000,
    multixact_age=0, freeze_age=200_000_000, autovacuum_on=True, disk=Disk(10**11, 2 * 10**11),
)  # fmt: skip
ROW = Shape(width=60, columns=5, has_nulls=False, fillfactor=100)
CLEAN = TableMeasure(
    "message_202603", bytes=100_000_000, index_bytes=30_000_000, rows=1_000_000, live=1_000_000, shape=ROW,
    vacuum_threshold=200_050, analyze_threshold=100_050, analyzed_at=NIGHT, vacuumed_at=NIGHT, index_scans=1_000,
)  # fmt: skip
ENTRY = Shape(width=16, columns=2, has_nulls=False, fillfactor=90)
TIGHT = IndexMeasure("message_202603_pkey", CLEAN.name, 31_700_000, enforces=True, rows=1_000_000, shape=ENTRY, scans=9)


def measures(
    *tables: TableMeasure, indexes: tuple[IndexMeasure, ...] = (), at: datetime = NIGHT, **server: Any
) -> Measures:
    return Measures(at, replace(SERVER, **server), tables or (CLEAN,), indexes)


def due(found: Measures, settings: Settings | None = None, by: str = "") -> list[tuple[Act, str, str]]:
    return [(step.act, step.relation, step.why_not) for step in maintenance.plan(found, settings or Settings(), by=by)]


def test_a_clean_database_needs_nothing_and_nothing_is_remarked() -> None:
    found = measures(CLEAN, indexes=(TIGHT,))
    assert maintenance.plan(found, Settings()) == ()
    assert remarks(found, (), Settings()) == ()


@pytest.mark.parametrize(
    ("table", "act"),
    [
        (replace(CLEAN, dead=999), None),
        (replace(CLEAN, dead=100_000), None),
        (replace(CLEAN, dead=112_000), Act.VACUUM),
        (replace(CLEAN, rows=-1, live=0, analyzed_at=None), Act.ANALYZE),
        (replace(CLEAN, rows=-1, live=0, analyzed_at=None, bytes=0), None),
        (replace(CLEAN, modified=100_050), None),
        (replace(CLEAN, modified=100_051), Act.ANALYZE),
        (replace(CLEAN, modified=300_000, dead=300_000), Act.VACUUM_ANALYZE),
        (replace(CLEAN, transaction_age=149_999_999), None),
        (replace(CLEAN, transaction_age=150_000_000), Act.VACUUM),
        (replace(CLEAN, dead=500_000, is_mine=False), None),
    ],
)
def test_a_table_gets_what_it_needs_and_no_more(table: TableMeasure, act: Act | None) -> None:
    assert [found for found, _, _ in due(measures(table))] == ([] if act is None else [act])


def test_rows_before_indexes_and_small_before_large() -> None:
    small = replace(CLEAN, name="job", bytes=100_000, index_bytes=50_000, rows=1_000, live=1_000, dead=5_000)
    large = replace(CLEAN, dead=900_000)
    bloated = replace(TIGHT, bytes=150_000_000)
    left = IndexMeasure("message_202603_pkey_ccnew", CLEAN.name, 5_000_000, is_valid=False)
    assert [(act, name) for act, name, _ in due(measures(large, small, indexes=(bloated, left)))] == [
        (Act.DROP, "message_202603_pkey_ccnew"), (Act.VACUUM, "job"), (Act.VACUUM, "message_202603"),
        (Act.REINDEX, "message_202603_pkey"),
    ]  # fmt: skip


def test_pages_go_back_to_the_disk_only_from_partitions_nobody_writes_to() -> None:
    tables = [
        replace(CLEAN, name=name, dead=900_000)
        for name in ("recipient", "message_202603", "message_202602", "message_202601", "outcome_20260115")
    ]
    truncating = [step.relation for step in maintenance.plan(measures(*tables), Settings()) if step.truncates]
    assert sorted(truncating) == ["message_202601", "outcome_20260115"]


def test_a_partitioned_parent_is_analysed_once_a_week_by_itself() -> None:
    parent = TableMeasure("message", is_partitioned=True)
    child = replace(CLEAN, parent="message")
    step = maintenance.plan(measures(parent, child), Settings())[0]
    assert (step.act, step.relation, step.only) == (Act.ANALYZE, "message", True)
    assert not maintenance.plan(measures(parent, child, version=17), Settings())[0].only
    assert due(measures(replace(parent, analyzed_at=NIGHT - timedelta(days=5)), child)) == []
    assert due(measures(parent)) == [], "a parent without rows below it"


def test_a_bloated_index_is_rebuilt_until_a_rebuild_has_shown_that_it_is_no_smaller() -> None:
    large = replace(TIGHT, bytes=60_000_000)
    assert due(measures(CLEAN, indexes=(large,))) == [(Act.REINDEX, TIGHT.name, "")]
    assert due(measures(CLEAN, indexes=(replace(large, rebuilt=Rebuilt(NIGHT, 58_000_000, 1_000_000)),))) == []
    grown = replace(large, bytes=150_000_000, rebuilt=Rebuilt(NIGHT, 58_000_000, 1_000_000))
    step = maintenance.plan(measures(CLEAN, indexes=(grown,)), Settings())[0]
    assert (step.gain_bytes, step.is_urgent) == (92_000_000, True)
    assert "larger than its table" in step.reason


def test_an_index_is_judged_by_the_rows_its_table_has_now() -> None:
    table = replace(CLEAN, live=100_000, modified=900_000, dead=900_000)
    assert Act.REINDEX in [act for act, _, _ in due(measures(table, indexes=(TIGHT,)))]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"transactions": (OpenTransaction(7, "bob (psql)", "idle in transaction", 700),)},
            "a transaction of bob (psql), pid 7",
        ),
        ({"disk": Disk(5_000_000_000, 10**11)}, "the disk has 5.0 GB free"),
    ],
)
def test_what_would_be_of_no_use_or_has_no_room_is_put_off_and_says_why(change: dict[str, Any], words: str) -> None:
    found = measures(CLEAN, indexes=(replace(TIGHT, bytes=90_000_000),), **change)
    assert [words in why for _, _, why in due(found, by="alice")] == [True]


def test_statistics_are_taken_beside_a_long_transaction() -> None:
    waiting = (OpenTransaction(7, "bob", "active", 7_000),)
    assert due(measures(replace(CLEAN, modified=500_000), transactions=waiting)) == [(Act.ANALYZE, CLEAN.name, "")]


def test_nothing_begins_outside_the_window_unless_an_operator_ordered_it() -> None:
    table = replace(CLEAN, dead=900_000)
    assert "waits for the window 02:00-05:00 (UTC)" in due(measures(table, at=NOON))[0][2]
    assert due(measures(table, at=NOON), by="alice")[0][2] == ""
    assert due(measures(table))[0][2] == ""


def test_what_does_not_fit_into_the_rest_of_the_window_waits_and_what_fits_into_none_is_said() -> None:
    large = replace(CLEAN, bytes=80 * 10**9, dead=900_000)
    late = due(measures(large, at=NIGHT.replace(hour=4, minute=50)))[0][2]
    assert "closes before: the next one" in late
    huge = measures(replace(CLEAN, bytes=10**12, dead=900_000))
    assert "which no window 02:00-05:00 (UTC) holds" in due(huge)[0][2]
    step = maintenance.plan(huge, Settings())[0]
    assert not maintenance.waits_for_window(step, huge, Settings())


@pytest.mark.parametrize(
    ("statistics", "acts"),
    [(Statistics.FULL, [Act.VACUUM_ANALYZE]), (Statistics.NONE, []), (Statistics.ANALYZE_ONLY, [Act.ANALYZE])],
)
def test_the_option_of_the_field_decides_about_vacuum_and_analyze(statistics: Statistics, acts: list[Act]) -> None:
    table = replace(CLEAN, dead=900_000, modified=900_000)
    assert [act for act, _, _ in due(measures(table), Settings(statistics=statistics))] == acts
    frozen = replace(CLEAN, transaction_age=190_000_000)
    assert [act for act, _, _ in due(measures(frozen), Settings(statistics=statistics))] == [Act.VACUUM], "always"


def test_by_name_a_parent_means_its_partitions_and_a_table_its_indexes() -> None:
    child = replace(CLEAN, parent="message")
    found = measures(TableMeasure("message", is_partitioned=True), child, indexes=(TIGHT,))
    assert [step.relation for step in maintenance.of(found, ["message"], Act.VACUUM_ANALYZE)] == [child.name]
    assert [step.relation for step in maintenance.of(found, ["message"], Act.REINDEX)] == [TIGHT.name]
    assert [step.relation for step in maintenance.of(found, [TIGHT.name], Act.REINDEX)] == [TIGHT.name]


def said(found: Measures, settings: Settings | None = None) -> dict[tuple[str, str], Remark]:
    chosen = settings or Settings()
    return {(remark.kind, remark.subject): remark for remark in remarks(found, maintenance.plan(found, chosen), chosen)}


@pytest.mark.parametrize(
    ("found", "key", "level"),
    [
        (measures(replace(CLEAN, dead=1_200_000)), ("dead rows", CLEAN.name), Level.NOW),
        (measures(replace(CLEAN, dead=120_000)), ("dead rows", CLEAN.name), Level.SOON),
        (measures(replace(CLEAN, dead=1_200_000)), ("autovacuum lag", CLEAN.name), Level.NOW),
        (measures(replace(CLEAN, has_autovacuum=False)), ("autovacuum", CLEAN.name), Level.SOON),
        (measures(autovacuum_on=False), ("autovacuum", "autovacuum"), Level.NOW),
        (measures(replace(CLEAN, bytes=400_000_000)), ("table bloat", CLEAN.name), Level.NOTE),
        (measures(transaction_age=1_100_000_000), ("wraparound", "transaction ids"), Level.NOW),
        (measures(multixact_age=600_000_000), ("wraparound", "multixact ids"), Level.SOON),
        (measures(numbers=(Numbers("job_serial", 9, 10),)), ("numbers", "job_serial"), Level.NOW),
        (measures(numbers=(Numbers("a.id", 6, 10),)), ("numbers", "a.id"), Level.SOON),
        (measures(connections=76), ("connections", "server"), Level.SOON),
        (measures(connections=95), ("connections", "server"), Level.NOW),
        (measures(connections_budget=101), ("connections", "budget"), Level.SOON),
        (measures(slots=(Slot("standby", is_active=True, held_bytes=17 * 10**9, status="extended"),)), ("replication slot", "standby"), Level.NOW),
        (measures(slots=(Slot("old", is_active=False, held_bytes=10, status="reserved"),)), ("replication slot", "old"), Level.NOTE),
        (measures(slots=(Slot("gone", is_active=False, held_bytes=None, status="lost"),)), ("replication slot", "gone"), Level.NOW),
        (measures(disk=Disk(4, 100)), ("disk", "server"), Level.NOW),
        (measures(disk=Disk(14, 100)), ("disk", "server"), Level.SOON),
        (measures(transactions=(OpenTransaction(7, "bob", "active", 3_700),)), ("long transaction", "bob"), Level.NOW),
        (measures(transactions=(OpenTransaction(7, "bob", "active", 700),)), ("long transaction", "bob"), Level.SOON),
        (measures(CLEAN, indexes=(replace(TIGHT, enforces=False, scans=0),)), ("unused index", TIGHT.name), Level.NOTE),
        (measures(replace(CLEAN, sequential_scans=900)), ("missing index", CLEAN.name), Level.NOTE),
    ],
)  # fmt: skip
def test_what_is_wrong_is_remarked_with_its_level(found: Measures, key: tuple[str, str], level: Level) -> None:
    assert said(found)[key].level is level


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (measures(numbers=(Numbers("delivery_serial", 9, 10, cycles=True),)), "numbers"),
        (measures(CLEAN, indexes=(replace(TIGHT, scans=0),)), "unused index"),
        (measures(CLEAN, indexes=(replace(TIGHT, enforces=False, scans=0),), stats_since=NIGHT - timedelta(days=2)), "unused index"),
        (measures(slots=(Slot("standby", is_active=True, held_bytes=10, status="reserved"),)), "replication slot"),
        (measures(replace(CLEAN, bytes=1_000_000, sequential_scans=900)), "missing index"),
    ],
)  # fmt: skip
def test_what_is_meant_to_be_so_is_not_remarked(found: Measures, kind: str) -> None:
    assert kind not in {remark.kind for remark in said(found).values()}


def test_what_the_plan_would_do_is_said_and_what_it_leaves_to_the_dba() -> None:
    found = measures(replace(CLEAN, dead=900_000))
    assert said(found)["dead rows", CLEAN.name].remedy.startswith("vacuum by the next run (reads ")
    advised = said(found, Settings(advises=True))["dead rows", CLEAN.name].remedy
    assert advised.startswith("advised to the DBA: vacuum")
    later = said(measures(replace(CLEAN, dead=900_000), at=NOON))["dead rows", CLEAN.name].remedy
    assert "due but not now: it waits for the window" in later


def test_the_worst_comes_first_and_a_forecast_counts() -> None:
    soon = Forecast("disk free", "disk free", 10, 100, -1.0, 5.0, NIGHT, "full on Friday")
    found = remarks(
        measures(replace(CLEAN, dead=120_000)),
        maintenance.plan(measures(replace(CLEAN, dead=120_000)), Settings()),
        Settings(),
        [soon],
    )
    assert [(remark.level, remark.kind) for remark in found] == [(Level.NOW, "forecast"), (Level.SOON, "dead rows")]


def test_a_window_in_another_zone_is_meant_on_its_clock() -> None:
    chosen = Settings(window=parse("02:00-05:00", "America/New_York"))
    assert due(measures(replace(CLEAN, dead=900_000), at=NIGHT), chosen)[0][2] != ""
    assert due(measures(replace(CLEAN, dead=900_000), at=NIGHT.replace(hour=8)), chosen)[0][2] == ""

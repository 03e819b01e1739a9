"""How many workflows ran at once: counted by values, and read from many runs within its time."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from midsource.engine import heat
from midsource.store.database import Database

DAY = datetime(2026, 5, 4, tzinfo=UTC)


def at(hour: int, minute: int, second: int = 0) -> datetime:
    return DAY + timedelta(hours=hour, minutes=minute, seconds=second)


def test_a_workflow_counts_once_in_each_cell_that_it_ran_in() -> None:
    runs = [
        ("a", at(0, 1), at(0, 2)),
        ("a", at(0, 3), at(0, 4)),
        ("b", at(0, 4, 59), at(0, 10)),
        ("c", DAY - timedelta(days=3), DAY + timedelta(days=3)),
        ("d", at(23, 59), at(23, 59)),
        ("e", DAY - timedelta(hours=2), DAY - timedelta(hours=1)),
    ]
    cells = heat.count([run for run in runs if run[2] >= DAY], DAY, DAY + timedelta(days=1))
    assert [len(cell) for cell in cells[:4]] == [3, 2, 2, 1]
    assert cells[-1] == {"c", "d"}
    assert len(cells) == 288


def test_a_day_is_read_by_its_zone_its_names_and_its_least_duration(engine_db: Database) -> None:
    with engine_db.connection() as conn:
        conn.execute("insert into workflow (name, schedule) values ('a', 'every hour'), ('b', 'every hour')")
        conn.execute(
            "insert into workflow_run (workflow, started_at, finished_at, outcome) values "
            "('a', '2026-05-04 10:00Z', '2026-05-04 10:07Z', 'finished'), ('b', '2026-05-04 10:06Z', '2026-05-04 10:06:01Z', 'failed'), "
            "('b', '2026-05-03 22:30Z', '2026-05-03 22:31Z', 'finished'), "
            "('b', '2026-05-04 09:00:02Z', '2026-05-04 09:00:01Z', 'aborted')"  # ended before it began: a clock was set
        )
        conn.execute("insert into workflow_run (workflow, started_at) values ('a', '2026-05-04 23:00Z')")
        found = heat.of_day(conn, date(2026, 5, 4))
        assert [sum(filter(None, hour.cells)) for hour in found.hours] == [0] * 9 + [1, 3] + [0] * 12 + [12]
        assert (found.most, found.busiest, len(found.cells)) == (2, ["a", "b"], 288)
        assert sum(heat.of_day(conn, date(2026, 5, 4), names=["b"]).cells) == 2
        assert sum(heat.of_day(conn, date(2026, 5, 4), least_seconds=60, names=["b"]).cells) == 0
        paris = heat.of_day(conn, date(2026, 5, 4), ZoneInfo("Europe/Paris"))
        assert paris.cells[6] == 1, "22:30 UTC of the day before is half past midnight there"
        assert len(heat.of_day(conn, date(2026, 3, 29), ZoneInfo("Europe/Paris")).cells) == 23 * 12


def rows(engine_db: Database, day: str, zone: str) -> list[tuple[int, str, int]]:
    """Return hour, offset and number of cells that there are, row by row."""
    with engine_db.connection() as conn:
        found = heat.of_day(conn, date.fromisoformat(day), ZoneInfo(zone))
    return [(row.hour, row.offset, sum(cell is not None for cell in row.cells)) for row in found.hours]


def test_rows_are_hours_of_the_wall_clock_also_where_it_changes(engine_db: Database) -> None:
    paris = rows(engine_db, "2026-03-29", "Europe/Paris")
    assert [hour for hour, _, _ in paris] == [0, 1, *range(3, 24)], "02 is skipped"
    twice = rows(engine_db, "2026-10-25", "Europe/Paris")
    assert twice[1:5] == [(1, "", 12), (2, "+02:00", 12), (2, "+01:00", 12), (3, "", 12)]
    assert rows(engine_db, "2026-04-05", "Australia/Lord_Howe")[1:3] == [(1, "+11:00", 12), (1, "+10:30", 6)]
    assert rows(engine_db, "2026-10-04", "Australia/Lord_Howe")[2] == (2, "", 6), "the clock goes on by half an hour"
    assert rows(engine_db, "2026-04-24", "Africa/Cairo")[0] == (1, "", 12), "midnight itself is skipped"
    assert rows(engine_db, "2011-12-30", "Pacific/Apia") == [], "the day that was not"


def test_the_fullest_is_named_by_its_zones_clock_with_the_offset_where_that_hour_comes_twice(
    engine_db: Database,
) -> None:
    with engine_db.connection() as conn:
        conn.execute("insert into workflow (name, schedule) values ('a', 'every hour')")
        conn.execute(
            "insert into workflow_run (workflow, started_at, finished_at, outcome) values "
            "('a', '2026-10-25 01:31Z', '2026-10-25 01:32Z', 'finished'), ('a', '2026-10-24 01:31Z', '2026-10-24 01:32Z', 'finished')"
        )
        paris = ZoneInfo("Europe/Paris")
        assert heat.of_day(conn, date(2026, 10, 25), paris).fullest_at == "02:30 UTC+01:00"
        assert heat.of_day(conn, date(2026, 10, 24), paris).fullest_at == "03:30"
        assert heat.of_day(conn, date(2026, 10, 23), paris).fullest_at == ""


def test_a_day_among_100_000_runs_costs_its_own_runs(engine_db: Database) -> None:
    """Bounded by what is read, not by the clock of this machine: the plan reads the index, and no more than the day."""
    with engine_db.connection() as conn:
        conn.execute(
            "insert into workflow (name, schedule) select 'w' || n, 'every hour' from generate_series(0, 14) n"
        )
        conn.execute(
            "insert into workflow_run (workflow, started_at, finished_at, outcome) select 'w' || n %% 15, begun, "
            "begun + interval '20 s', 'finished' from (select n, %s::timestamptz - n * interval '35 s' begun "
            "from generate_series(1, 100000) n) runs",
            (DAY + timedelta(days=1),),
        )
        conn.execute("analyze workflow_run")
        began = time.process_time()
        found = heat.of_day(conn, DAY.date() - timedelta(days=3))
        assert time.process_time() - began < 0.5
        plan = str(
            conn.execute(
                "explain (analyze, format json) " + heat._RUNS,
                {"begin": DAY, "end": DAY + timedelta(days=1), "names": None, "most": heat.MAX_RUNS},
            ).fetchone()
        )
    assert found.most >= 8
    assert "workflow_run_span" in plan
    assert "Seq Scan" not in plan

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
        assert [sum(hour) for hour in found.hours] == [0] * 9 + [1, 3] + [0] * 12 + [12]
        assert (found.most, found.busiest, len(found.cells)) == (2, ["a", "b"], 288)
        assert sum(heat.of_day(conn, date(2026, 5, 4), names=["b"]).cells) == 2
        assert sum(heat.of_day(conn, date(2026, 5, 4), least_seconds=60, names=["b"]).cells) == 0
        paris = heat.of_day(conn, date(2026, 5, 4), ZoneInfo("Europe/Paris"))
        assert paris.cells[6] == 1, "22:30 UTC of the day before is half past midnight there"
        assert len(heat.of_day(conn, date(2026, 3, 29), ZoneInfo("Europe/Paris")).cells) == 23 * 12


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

"""Deliveries that recur and deliveries in waves: from the file to what a tick makes; jobs that nobody has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from midsource.engine import jobs
from midsource.engine.work import Context
from midsource.marketing import deliveries, orders, planned, recurring
from midsource.marketing.deliveries import Delivery
from midsource.model.delivery import DeliveryState
from midsource.model.errors import ConfigError, Conflict, Failed
from midsource.store.database import Database, scalar
from midsource.testing.clock import ManualClock
from midsource.workflows import delivery_jobs

BODY = "Hello {{ recipient.first_name }} {{ links.unsubscribe }}"
WEEKLY = '[recurrence]\nschedule = "weekly on monday at 09:00"\nzone = "Europe/Paris"\n'
MONDAY = datetime(2026, 3, 2, 8, tzinfo=UTC)


def make(db: Database, folder: Path, clock: ManualClock, more: str) -> Delivery:
    (folder / "body.txt").write_text(BODY, encoding="utf-8")
    path = folder / "d.toml"
    path.write_text(f'label = "Letter"\nsubject = "Hi"\ntext = "body.txt"\n{more}', encoding="utf-8")
    with db.transaction() as conn:
        return deliveries.get(conn, deliveries.create_from_toml(conn, path, clock))


def order(db: Database, number: int, verb: str, clock: ManualClock) -> None:
    with db.transaction() as conn:
        orders.order(conn, number, verb, by="ines", now=clock.now())


def run(db: Database, clock: ManualClock, said: list[str] | None = None) -> None:
    lines = said if said is not None else []
    delivery_jobs.run_once(
        Context(
            db, clock, Path(), "marketing", 0, lambda _level, line: lines.append(line), lambda: None, lambda _p: None
        )
    )


def children(db: Database, number: int) -> list[recurring.Occurrence]:
    with db.connection() as conn:
        return recurring.made_by(conn, number)


def test_the_file_gives_waves_by_share_or_by_number(ready_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    by_share = make(ready_db, tmp_path, clock, '[wave]\nsize = "20%"\nevery = "1d"\n')
    assert (by_share.wave_percent, by_share.wave_messages, by_share.wave_period_seconds) == (20, None, 86_400)
    assert str(by_share.waves) == "20 % each 1d"
    by_number = make(ready_db, tmp_path, clock, '[wave]\nsize = 5000\nevery = "2h"\n')
    assert str(by_number.waves) == "5000 messages each 2h"
    assert make(ready_db, tmp_path, clock, "").waves is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[wave]\nsize = "100%"\nevery = "1d"\n', "wave.size"),
        ('[wave]\nsize = "some"\nevery = "1d"\n', "wave.size"),
        ('[wave]\nsize = "20%"\nevery = "1s"\n', "wave.every"),
        ('[wave]\nsize = "20%"\n', "wave.every: missing"),
        ('[recurrence]\nschedule = "now and then"\n', "recurrence.schedule"),
        ('[recurrence]\nschedule = "daily at 09:00"\nzone = "Mars/Olympus"\n', "recurrence.schedule"),
        ('contact_at = 2026-05-01T09:00:00Z\n[recurrence]\nschedule = "daily at 09:00"\n', "contact_at"),
        ('[recurrence]\nschedule = "daily at 09:00"\nopen = 0\n', "recurrence.open"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    ready_db: Database, clock: ManualClock, tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        make(ready_db, tmp_path, clock, text)


def test_send_begins_it_and_each_tick_makes_one_that_is_sent(
    ready_db: Database, clock: ManualClock, tmp_path: Path
) -> None:
    parent = make(ready_db, tmp_path, clock, WEEKLY + '[wave]\nsize = "50%"\nevery = "1h"\n')
    run(ready_db, clock)
    assert children(ready_db, parent.id) == []
    order(ready_db, parent.id, "start", clock)
    run(ready_db, clock)
    assert children(ready_db, parent.id) == []  # its first tick is on Monday
    clock.advance(MONDAY - clock.now() + timedelta(seconds=30))
    said: list[str] = []
    run(ready_db, clock, said)
    run(ready_db, clock)
    (child,) = children(ready_db, parent.id)
    assert child.label == "Letter 2026-03-02 09:00"
    assert any(f"made {child.id}" in line for line in said)
    with ready_db.connection() as conn:
        made = deliveries.get(conn, child.id)
        assert (made.subject, made.text, made.wave_percent, made.recurrence) == ("Hi", BODY, 50, "")
        assert made.confirmed_at == clock.now()
        assert jobs.of_subject(conn, child.id)[0].kind == "prepare"
        assert deliveries.get(conn, parent.id).recurrence_next_at == MONDAY + timedelta(weeks=1)
        plans = planned.read(conn, deliveries.get(conn, parent.id), clock.now())
    assert plans.next_ticks[0] == MONDAY + timedelta(weeks=1)
    assert f"It made {child.id}" in " ".join(plans.lines())
    with pytest.raises(Conflict, match="recurs already"):
        order(ready_db, parent.id, "start", clock)


def test_while_one_is_open_the_next_tick_is_left_out(ready_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    parent = make(ready_db, tmp_path, clock, WEEKLY)
    order(ready_db, parent.id, "start", clock)
    clock.advance(MONDAY - clock.now())
    run(ready_db, clock)
    clock.advance(timedelta(weeks=1))
    said: list[str] = []
    run(ready_db, clock, said)
    assert len(children(ready_db, parent.id)) == 1
    assert any("its tick is left out, 1 of it are still open" in line for line in said)
    with ready_db.transaction() as conn:
        conn.execute("update delivery set state = 95 where made_of is not null")
    clock.advance(timedelta(weeks=3, hours=1))  # three ticks, of which two were missed
    run(ready_db, clock, said)
    assert [child.label for child in children(ready_db, parent.id)] == [
        "Letter 2026-03-30 09:00",
        "Letter 2026-03-02 09:00",
    ]
    assert any("makes up 2 missed" in line for line in said)


def test_stop_ends_it_and_leaves_what_it_made(ready_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    parent = make(ready_db, tmp_path, clock, WEEKLY)
    order(ready_db, parent.id, "start", clock)
    clock.advance(MONDAY - clock.now())
    run(ready_db, clock)
    order(ready_db, parent.id, "stop", clock)
    clock.advance(timedelta(weeks=2))
    run(ready_db, clock)
    (child,) = children(ready_db, parent.id)
    assert child.state != DeliveryState.STOPPED
    with ready_db.connection() as conn:
        assert deliveries.get(conn, parent.id).state == DeliveryState.STOPPED
        assert planned.read(conn, deliveries.get(conn, parent.id), clock.now()).next_ticks == ()


def test_a_tick_that_cannot_be_made_stays_due_and_stops_no_other(
    ready_db: Database, clock: ManualClock, tmp_path: Path
) -> None:
    broken, fine = (make(ready_db, tmp_path, clock, WEEKLY) for _ in range(2))
    for parent in (broken, fine):
        order(ready_db, parent.id, "start", clock)
    clock.advance(MONDAY - clock.now())
    with ready_db.transaction() as conn:
        conn.execute("update delivery set recurrence = 'nonsense' where id = %s", (broken.id,))
    with pytest.raises(Failed, match="1 recurring deliveries could not make their next"):
        run(ready_db, clock)
    assert len(children(ready_db, fine.id)) == 1
    with ready_db.transaction() as conn:
        conn.execute("update delivery set recurrence = 'weekly on monday at 09:00' where id = %s", (broken.id,))
    run(ready_db, clock)
    assert len(children(ready_db, broken.id)) == 1


def test_a_job_that_nobody_has_is_asked_for_again_but_not_for_ever(
    ready_db: Database, clock: ManualClock, tmp_path: Path
) -> None:
    number = make(ready_db, tmp_path, clock, "").id
    order(ready_db, number, "start", clock)
    said: list[str] = []
    with ready_db.transaction() as conn:
        conn.execute("update delivery set modified_at = %s where id = %s", (clock.now(), number))
        conn.execute("delete from job")
    run(ready_db, clock, said)
    assert said == []  # it has not stood for two minutes
    for _ in range(8):
        clock.advance(timedelta(minutes=3))
        run(ready_db, clock, said)
        with ready_db.transaction() as conn:
            conn.execute(
                "update job set finished_at = %s, asked_at = %s, outcome = 'failed'", (clock.now(), clock.now())
            )
    assert len(said) == 5
    assert f"delivery {number} stood edited without a job: prepare is asked for again" in said[0]
    with ready_db.connection() as conn:
        assert scalar(conn, "select count(*) from job") == 5

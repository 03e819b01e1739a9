"""Deliveries from files, their inheritance, and their moves from state to state."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier, Thread

import pytest

from midsource.marketing import deliveries, lists, options, segments, templates
from midsource.marketing.sample import write_sample_delivery
from midsource.model.delivery import DeliveryEvent, DeliveryState
from midsource.model.durations import parse_duration
from midsource.model.errors import ConfigError, Conflict, NotFound, UserError
from midsource.store.database import Database
from midsource.testing.clock import ManualClock

BODY = "Hello {{ recipient.first_name }} {{ links.unsubscribe }}"


def write(folder: Path, document: str) -> Path:
    (folder / "body.html").write_text(f"<p>{BODY}</p>", encoding="utf-8")
    (folder / "body.txt").write_text(BODY, encoding="utf-8")
    path = folder / "d.toml"
    path.write_text(document, encoding="utf-8")
    return path


def create(database: Database, path: Path, clock: ManualClock) -> deliveries.Delivery:
    with database.transaction() as conn:
        return deliveries.get(conn, deliveries.create_from_toml(conn, path, clock))


def test_smallest_file_takes_the_rest_from_brand_account_and_options(
    ready_db: Database, clock: ManualClock, tmp_path: Path
) -> None:
    with ready_db.transaction() as conn:
        options.set_value(conn, "NmsEmail_RetryCount", "7", by="Alice", now=clock.now())
    made = create(
        ready_db, write(tmp_path, 'label = "A"\nsubject = "Hi"\nhtml = "body.html"\ntext = "body.txt"\n'), clock
    )
    assert made.id == (202603 << 32) + 1
    assert (made.account, made.from_address, made.from_name) == ("mid1", "news@atelier.example", "Atelier")
    assert (made.validity_seconds, made.retry_count, made.retry_period_seconds) == (432_000, 7, 3_600)
    assert (made.html, made.text, made.state, made.target_list) == (f"<p>{BODY}</p>", BODY, 0, None)


def test_template_gives_what_the_file_leaves_out(ready_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    with ready_db.transaction() as conn:
        templates.save_template(
            conn,
            templates.DeliveryTemplate(
                "weekly", "Weekly", "<b>t</b>", "t", [["X-A", "1"], ["X-B", "1"]], 2, 60, 7_200, "resend"
            ),
        )
    made = create(
        ready_db,
        write(
            tmp_path, 'label = "A"\ntemplate = "weekly"\ntext = "body.txt"\nvalidity = "36h"\n[headers]\nX-B = "2"\n'
        ),
        clock,
    )
    assert (made.subject, made.html, made.text, made.uncertain_policy) == ("Weekly", "<b>t</b>", BODY, "resend")
    assert (made.validity_seconds, made.retry_count, made.retry_period_seconds) == (129_600, 2, 60)
    assert made.content.headers == (("X-A", "1"), ("X-B", "2"))


def test_every_problem_of_a_file_is_reported_at_once(ready_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'subjekt = "Hi"\nhtml = "missing.html"\nvalidity = 5\ncontact_at = 2026-03-01T09:00:00\nuncertain = "maybe"\n'
        '[sender]\nadress = "x@y"\n[retry]\ncount = 101\nperiod = "5 parsecs"\n[target]\nsegment = "a"\nexpression = "vip"\n',
    )
    with pytest.raises(ConfigError) as caught:
        create(ready_db, path, clock)
    problems = "\n".join(caught.value.problems)
    for expected in (
        "d.toml: label: missing",
        "d.toml: subjekt: unknown key (did you mean subject?)",
        "d.toml: uncertain: invalid enum value 'maybe', got 'maybe'",
        "d.toml: sender.adress: unknown key (did you mean address?)",
        "d.toml: retry.count: expected `int` <= 100, got 101",
    ):
        assert expected in problems
    path = write(tmp_path, path.read_text(encoding="utf-8").replace("subjekt", "label").replace("adress", "address"))
    path.write_text(path.read_text(encoding="utf-8").replace('"maybe"', '"hold"').replace("101", "1"), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        create(ready_db, path, clock)
    problems = "\n".join(caught.value.problems)
    for expected in (
        "missing.html cannot be read (No such file or directory)",
        "validity: 5 of what?; say the unit: '5s', '5min', '5h' or '5d'",
        "retry.period: expected a length of time such as '5d' or '36h', got '5 parsecs'",
        "contact_at: expected a time with its zone",
        "target: expected segment or expression, got both",
    ):
        assert expected in problems


def test_segment_and_list_are_resolved_when_the_delivery_is_made(
    ready_db: Database, clock: ManualClock, tmp_path: Path
) -> None:
    document = 'label = "A"\nsubject = "Hi"\ntext = "body.txt"\ncontact_at = 2026-03-02T09:00:00+01:00\n[target]\n'
    path = write(tmp_path, document + 'list = "all"\nsegment = "french"\n')
    with pytest.raises(NotFound, match="there is no segment 'french'"):
        create(ready_db, path, clock)
    with ready_db.transaction() as conn:
        segments.create_segment(conn, "french", "language = 'fr'")
    with pytest.raises(NotFound, match="there is no list 'all'"):
        create(ready_db, path, clock)
    with ready_db.transaction() as conn:
        lists.ensure_list(conn, "all")
    made = create(ready_db, path, clock)
    assert (made.target_list, made.target_expression) == ("all", "language = 'fr'")
    assert made.contact_at == datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


def test_account_must_exist_and_be_named_when_there_are_several(
    ready_db: Database, clock: ManualClock, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match=r"no active external account 'mid9': accounts: mid1"):
        create(ready_db, write(tmp_path, 'label = "A"\naccount = "mid9"\n'), clock)
    with ready_db.transaction() as conn:
        conn.execute(
            "insert into external_account (name, label, url, key_id, secret) values ('mid2', 'b', 'http://n', 'k', 's')"
        )
    with pytest.raises(UserError, match="names no account"):
        create(ready_db, write(tmp_path, 'label = "A"\n'), clock)


def test_sample_delivery_is_created(ready_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    with ready_db.transaction() as conn:
        lists.ensure_list(conn, "all")
    made = create(ready_db, write_sample_delivery(tmp_path, account="mid1", list_name="all", label='Say "hi"'), clock)
    assert made.label == 'Say "hi"'
    assert 8_000 < len(made.html) + len(made.text) < 20_000


@pytest.mark.parametrize(("text", "seconds"), [("5d", 432_000), ("36 h", 129_600), ("90min", 5_400), ("2W", 1_209_600)])
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "line",
    ['subject = "a\\u0000b"', '[headers]\n"X-A" = "a\\u0000b"', "[target]\nexpression = \"first_name = '\\u0000'\""],
)
def test_a_nul_is_refused_where_it_stands(ready_db: Database, clock: ManualClock, tmp_path: Path, line: str) -> None:
    path = write(tmp_path, f'label = "A"\nhtml = "body.html"\ntext = "body.txt"\n{line}\n')
    with pytest.raises(ConfigError, match="without NUL"):
        create(ready_db, path, clock)


def test_transition_is_refused_with_the_state_and_what_would_allow_it(
    ready_db: Database, clock: ManualClock, tmp_path: Path
) -> None:
    made = create(ready_db, write(tmp_path, 'label = "A"\nsubject = "Hi"\ntext = "body.txt"\n'), clock)
    with ready_db.transaction() as conn:
        assert deliveries.transition(conn, made.id, DeliveryEvent.TARGETED) is DeliveryState.TARGET_READY
        with pytest.raises(
            Conflict, match=r"is target ready \(15\): start is not possible: it is in these states: ready"
        ):
            deliveries.transition(conn, made.id, DeliveryEvent.START)
        assert deliveries.get(conn, made.id).version == made.version + 1
    with ready_db.transaction() as conn, pytest.raises(NotFound, match=f"latest deliveries: {made.id}"):
        deliveries.transition(conn, 17, DeliveryEvent.START)


def test_of_two_who_move_at_once_one_wins(ready_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    made = create(ready_db, write(tmp_path, 'label = "A"\nsubject = "Hi"\ntext = "body.txt"\n'), clock)
    outcomes: list[str] = []
    together = Barrier(2)

    def move() -> None:
        together.wait()
        try:
            with ready_db.transaction() as conn:
                outcomes.append(deliveries.transition(conn, made.id, DeliveryEvent.TARGETED).name)
        except Conflict:
            outcomes.append("late")

    threads = [Thread(target=move) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["TARGET_READY", "late"]


def test_list_goes_backwards_by_id(ready_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    made = [create(ready_db, write(tmp_path, f'label = "{n}"\nsubject = "Hi"\n'), clock).id for n in range(3)]
    with ready_db.connection() as conn:
        assert [d.id for d in deliveries.latest(conn, limit=2)] == made[:0:-1]
        assert [d.id for d in deliveries.latest(conn, before=made[1])] == made[:1]

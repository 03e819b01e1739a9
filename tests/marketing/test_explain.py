"""Recipients found and erased, the delivery log read, and every 'why' answered."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from midsource.engine.work import Context
from midsource.marketing import deliveries, delivery_log, explain, importing, recipients
from midsource.marketing.preparation import prepare
from midsource.model.delivery import DeliveryEvent
from midsource.model.errors import Conflict, NotFound
from midsource.model.message import MessageState
from midsource.store.database import Database
from midsource.testing.clock import ManualClock

PEOPLE = (
    "external_id,email,first_name,opted_out,city\n"
    "1,alice@x.example,Alice,no,Lyon\n2,Bob@Y.example,Bob,no,\n3,charlie@x.example,Charlie,yes,\n4,bob@y.example,Bobby,no,\n"
    "5,not an@address,Eve,no,\n"
)


@pytest.fixture
def prepared(ready_db: Database, clock: ManualClock, tmp_path: Path) -> int:
    """Give the id of a delivery, prepared for Alice, Bob, Charlie (opted out), Bobby (Bob's address) and Eve (no address)."""
    (tmp_path / "p.csv").write_text(PEOPLE, encoding="utf-8")
    importing.import_recipients(
        ready_db, tmp_path / "p.csv", home=tmp_path, clock=clock, list_name="friends", create_fields=True
    )
    (tmp_path / "b.txt").write_text("Hello {{ recipient.first_name }} {{ links.unsubscribe }}", encoding="utf-8")
    (tmp_path / "d.toml").write_text('label = "News"\nsubject = "News"\ntext = "b.txt"\n', encoding="utf-8")
    with ready_db.transaction() as conn:
        number = deliveries.create_from_toml(conn, tmp_path / "d.toml", clock)
    context = Context(
        ready_db, clock, tmp_path, "marketing", number,
        say=lambda _level, _line: None, beat=lambda: None, progress=lambda _values: None,
    )  # fmt: skip
    while prepare(context).more_after_seconds is not None:
        pass
    return number


def hand_over(database: Database, number: int) -> None:
    with database.transaction() as conn:
        conn.execute(
            "update upload_part set state = 'acknowledged', acknowledged_at = '2026-03-01 12:00:05+00' where delivery_id = %s",
            (number,),
        )
        deliveries.transition(conn, number, DeliveryEvent.HANDED_OVER)
        deliveries.transition(conn, number, DeliveryEvent.START)


def story(database: Database, number: int, email: str) -> str:
    with database.connection() as conn:
        return "\n".join(explain.explain_person(conn, number, email).lines)


def test_people_are_listed_by_pages_and_lists(ready_db: Database, prepared: int) -> None:
    with ready_db.connection() as conn:
        first = recipients.page(conn, limit=2)
        second = recipients.page(conn, after=first.recipients[-1].id, limit=2, list_name="friends")
        assert (first.total, [p.first_name for p in first.recipients + second.recipients]) == (
            5,
            ["Alice", "Bob", "Charlie", "Bobby"],
        )
        assert recipients.as_dict(first.recipients[0])["city"] == "Lyon"
        assert recipients.lists_of(conn, first.recipients[0].id) == ["friends"]
        assert recipients.last_deliveries(conn, first.recipients[0].id) == [(prepared, 1, MessageState.PENDING)]
        with pytest.raises(NotFound):
            recipients.page(conn, list_name="foes")


def test_people_are_found_however_the_address_is_spelt(ready_db: Database, prepared: int) -> None:
    with ready_db.connection() as conn:
        assert [p.first_name for p in recipients.by_email(conn, " BOB@y.EXAMPLE ")] == ["Bob", "Bobby"]
        assert [p.first_name for p in recipients.by_email(conn, "not an@address")] == ["Eve"]
        with pytest.raises(NotFound, match="nobody has the address"):
            recipients.by_email(conn, "dora@x.example")


def test_log_is_read_in_order_over_pages(ready_db: Database, prepared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_log, "PAGE_ROWS", 2)
    rows = [delivery_log.as_dict(entry) for entry in delivery_log.entries(ready_db, prepared)]
    assert [(r["id"], r["status"], r["reason"], r["uncertain"]) for r in rows] == [
        (1, "pending", "", False),
        (2, "pending", "", False),
        (3, "ignored", "denylisted", False),
        (4, "ignored", "duplicate", False),
        (5, "ignored", "bad address", False),
    ]
    assert {"email", "reply", "attempts", "message_id"} <= rows[0].keys()
    assert [e.id for e in delivery_log.entries(ready_db, prepared, state=MessageState.IGNORED, after=3)] == [4, 5]


def test_excluded_person_is_told_why(ready_db: Database, prepared: int) -> None:
    assert "denylisted (the address or its domain is on the denylist or the person has opted out)" in story(
        ready_db, prepared, "charlie@x.example"
    )
    both = story(ready_db, prepared, "bob@y.example")
    assert "is message 2 of" in both
    assert "duplicate (somebody before has the same address). Nothing was sent." in both


def test_story_follows_a_message_from_part_to_answer(ready_db: Database, prepared: int) -> None:
    assert "Part 1 is stored and not yet taken by mid1 (0 attempts)." in story(ready_db, prepared, "alice@x.example")
    hand_over(ready_db, prepared)
    told = story(ready_db, prepared, "alice@x.example")
    assert "Part 1 was taken by mid1 at 2026-03-01 12:00:05 UTC." in told
    assert "The mid has reported nothing about it yet." in told
    with ready_db.transaction() as conn:
        conn.execute(
            "update broad_log set state = 61, reason = 3, attempts = 2, revision = 3, reply = '451 4.7.1 come back' "
            "where delivery_id = %s and id = 1", (prepared,)
        )  # fmt: skip
    assert "Deferred (unreachable) after 2 attempts, 2026-03-01 12:00:00 UTC: 451 4.7.1 come back" in story(
        ready_db, prepared, "alice@x.example"
    )


def change(database: Database, number: int, **values: object) -> None:
    """Let Alice's log row be as the feed, the hand-over or a stop leaves it."""
    with database.transaction() as conn:
        sets = ", ".join(f"{name} = %({name})s" for name in values)
        conn.execute(f"update broad_log set {sets} where delivery_id = %(id)s and id = 1", {"id": number, **values})


TAKEN = "Part 1 was taken by mid1 at 2026-03-01 12:00:05 UTC."
FATES: tuple[tuple[dict[str, object], tuple[str, ...]], ...] = (
    ({}, (TAKEN, "The mid has reported nothing about it yet.")),
    (
        {"state": 61, "reason": 3, "attempts": 2, "revision": 3, "reply": "451 4.7.1 come back"},
        (
            TAKEN,
            "Deferred (unreachable) after 2 attempts, 2026-03-01 12:00:00 UTC: 451 4.7.1 come back",
            "Retry 2 of 5 comes not before 2026-03-01 13:00:00 UTC.",
            "It is tried again until the validity of 5d is over, which is 2026-03-06 12:00:10 UTC.",
        ),
    ),
    (
        {"state": 1, "attempts": 1, "revision": 2, "reply": "250 2.0.0 queued", "message_id": "m1@x"},
        (TAKEN, "Sent after 1 attempt, 2026-03-01 12:00:00 UTC: 250 2.0.0 queued", "Message-ID m1@x."),
    ),
    (
        {"state": 2, "reason": 1, "attempts": 1, "revision": 2, "reply": "550 5.1.1 no such user"},
        (TAKEN, "Failed (user unknown) after 1 attempt, 2026-03-01 12:00:00 UTC: 550 5.1.1 no such user"),
    ),
    (
        {"state": 62, "attempts": 1, "revision": 2},
        (
            TAKEN,
            "Uncertain after 1 attempt, 2026-03-01 12:00:00 UTC",
            "The body went out and no reply was recorded; the delivery's policy is hold.",
        ),
    ),
    (
        {"state": 0, "reason": 201, "reply": "the address has no domain"},
        (
            TAKEN,
            "The mid refused this row alone at 2026-03-01 12:00:00 UTC: the address has no domain. Nothing was sent.",
        ),
    ),
    (
        {"state": 7},
        (
            TAKEN,
            "Cancelled at 2026-03-01 12:00:00 UTC: the delivery was stopped before the mid sent it. Nothing was sent.",
        ),
    ),
)


@pytest.mark.parametrize(("values", "told"), FATES)
def test_the_whole_story_is_told_in_order(
    ready_db: Database, prepared: int, values: dict[str, object], told: tuple[str, ...]
) -> None:
    hand_over(ready_db, prepared)
    with ready_db.transaction() as conn:
        conn.execute("update delivery set started_at = '2026-03-01 12:00:10+00'")
    if values:
        change(ready_db, prepared, **values)
    with ready_db.connection() as conn:
        lines = explain.explain_person(conn, prepared, "alice@x.example").lines
    assert lines[0].endswith(f"is message 1 of delivery {prepared}.")
    assert lines[1:] == told


def test_a_message_that_waits_for_an_order_says_for_which(ready_db: Database, prepared: int) -> None:
    with ready_db.transaction() as conn:
        conn.execute("update upload_part set state = 'acknowledged', acknowledged_at = '2026-03-01 12:00:05+00'")
        deliveries.transition(conn, prepared, DeliveryEvent.HANDED_OVER)
    assert "the delivery is ready.\nNobody has ordered to send it." in story(ready_db, prepared, "alice@x.example")
    with ready_db.transaction() as conn:
        conn.execute("update delivery set ordered = 'start', ordered_at = now(), contact_at = '2026-03-02 09:00:00+00'")
    told = story(ready_db, prepared, "alice@x.example")
    assert "Its contact date is 2026-03-02 09:00:00 UTC.\nThe order to start is not confirmed by mid1 yet." in told


def test_a_person_with_another_address_now_is_found_by_both(ready_db: Database, prepared: int) -> None:
    hand_over(ready_db, prepared)
    with ready_db.transaction() as conn:
        conn.execute(
            "update recipient set email = 'new@x.example', email_key = 'new@x.example' where external_id = '1'"
        )
    assert "has another one now" in story(ready_db, prepared, "Alice@x.example")
    assert "When the delivery was prepared the address was alice@x.example." in story(
        ready_db, prepared, "new@x.example"
    )


def test_an_address_that_nobody_has_or_had_is_said(ready_db: Database, prepared: int) -> None:
    with pytest.raises(
        NotFound, match=f"nobody has the address 'dora@x.example', and nobody in delivery {prepared} had"
    ):
        story(ready_db, prepared, "dora@x.example")


def test_person_outside_the_target_is_told_so(
    ready_db: Database, prepared: int, clock: ManualClock, tmp_path: Path
) -> None:
    (tmp_path / "q.csv").write_text("email\ndora@x.example\n", encoding="utf-8")
    importing.import_recipients(ready_db, tmp_path / "q.csv", home=tmp_path, clock=clock)
    assert "is not in the target of delivery" in story(ready_db, prepared, "dora@x.example")


def test_delivery_says_where_messages_wait_why_and_how_long(
    ready_db: Database, prepared: int, clock: ManualClock
) -> None:
    hand_over(ready_db, prepared)
    with ready_db.transaction() as conn:
        conn.execute(
            "update delivery set started_at = %s where id = %s", (clock.now() - timedelta(seconds=10), prepared)
        )
        conn.execute(
            "update broad_log set state = 61, revision = 2, reply = '421 4.7.0 slow down' where delivery_id = %s and id = 2",
            (prepared,),
        )
        conn.execute("update broad_log set state = 1, revision = 2 where delivery_id = %s and id = 1", (prepared,))
        conn.execute("delete from broad_log_total where delivery_id = %s", (prepared,))
        conn.execute(
            "insert into broad_log_total select delivery_id, domain, state, reason, count(*) from broad_log "
            "where delivery_id = %s group by 1, 2, 3, 4", (prepared,)
        )  # fmt: skip
        conn.execute(
            "insert into link_event (account, delivery_id, method, http_code, line) values "
            "('mid1', %s, 'AppendDeliveryPart', 408, 'AppendDeliveryPart part 1 of 1: HTTP 408, attempt 1, next in 2 s')",
            (prepared,),
        )
        conn.execute("update delivery set ordered = 'pause', ordered_at = now() where id = %s", (prepared,))
        conn.execute(
            'update delivery set figures = \'{"sent": 1, "pending": 30, "deferred": 1}\', figures_at = %s where id = %s',
            (clock.now(), prepared),
        )
        conn.execute("insert into delivery_sample values (%s, %s, 0)", (prepared, clock.now() - timedelta(seconds=10)))
        told = explain.explain_delivery(conn, prepared, clock.now())
    text = "\n".join(told.lines)
    assert "is start pending (51)" in text
    assert "5 people targeted, 3 excluded (" in text
    assert "y.example: 1 deferred (421 4.7.0 slow down), tried again from 2026-03-01 13:00:00 UTC." in text
    assert "The order to pause of " in text
    assert told.facts["waits_for"] == ["order_unconfirmed"]
    assert "HTTP 408, attempt 1" in text
    assert (told.facts["rate_per_second"], told.facts["eta_seconds"]) == (0.1, 300.0)
    assert (
        "0.1 messages a second over the last minute; every message has been tried in about 5min, and 1 deferred" in text
    )


def test_erasing_keeps_the_row_and_takes_the_name(ready_db: Database, prepared: int) -> None:
    with ready_db.transaction() as conn, pytest.raises(Conflict, match="not handed over yet"):
        recipients.erase(conn, "bob@y.example")
    hand_over(ready_db, prepared)
    with ready_db.transaction() as conn:
        erased = recipients.erase(conn, "bob@y.example")
        assert (erased.people, erased.log_rows) == (2, 2)
        assert recipients.page(conn, list_name="friends").total == len(recipients.page(conn).recipients) == 3
        assert conn.execute("select count(*) from list_member").fetchone() == (3,)
        with pytest.raises(NotFound):
            recipients.by_email(conn, "bob@y.example")
        assert conn.execute("select count(*), count(*) filter (where email = '') from broad_log").fetchone() == (5, 2)


def test_erased_person_who_had_opted_out_is_never_written_to_again(ready_db: Database, prepared: int) -> None:
    hand_over(ready_db, prepared)
    with ready_db.transaction() as conn:
        recipients.erase(conn, "charlie@x.example")
        assert conn.execute("select entry from denylist").fetchall() == [("charlie@x.example",)]

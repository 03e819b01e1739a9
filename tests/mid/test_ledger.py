"""The ledger moves by the table, counts what it moved, and keeps evidence of the rest."""

from __future__ import annotations

import random
import threading
from collections import Counter
from datetime import timedelta

import pytest

from midsource.mid import counters, ledger
from midsource.mid.ledger import OutcomeRecord
from midsource.model.message import TRANSITIONS, MessageEvent, MessageState
from midsource.store.database import Connection, scalar
from midsource.testing.mid import MidDatabase
from midsource.testing.reading import rows_read

E, S = MessageEvent, MessageState


def rows_of(conn: Connection, delivery: int) -> dict[int, tuple[int, int, int, str]]:
    found = conn.execute(
        "select id, state, attempts, revision, reply from message where delivery_id = %s order by id", (delivery,)
    )
    return {row[0]: tuple(row[1:]) for row in found}


def record(mid: MidDatabase, *outcomes: OutcomeRecord) -> ledger.RecordResult:
    with mid.database.transaction() as conn:
        return ledger.record_outcomes(conn, mid.account_id, outcomes, mid.clock.now())


def assert_counters_equal_rows(mid: MidDatabase, delivery: int) -> None:
    with mid.database.transaction() as conn:
        counted = dict(
            conn.execute("select state, count(*) from message where delivery_id = %s group by 1", (delivery,))
        )
        assert counters.totals(conn, mid.account_id, delivery) == counted
        assert counters.recount(conn, mid.account_id, delivery, mid.clock.now()) == {}


def test_one_outcome_moves_its_row_and_only_that(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=3)
    at = mid_db.clock.now() + timedelta(seconds=5)

    result = record(
        mid_db, OutcomeRecord(delivery, 2, E.ACCEPTED, at, reply="250 ok", message_id="<a@b>", stage="body")
    )

    assert result.rows == (ledger.Recorded(delivery, 2, S.PENDING, S.SENT, 1, 2, changed=True),)
    with mid_db.database.connection() as conn:
        assert rows_of(conn, delivery) == {1: (6, 0, 1, ""), 2: (1, 1, 2, "250 ok"), 3: (6, 0, 1, "")}
        assert scalar(conn, "select first_try_at from message where id = 2") == at
        outcome = conn.execute(
            "select id, old_state, new_state, attempts, revision, reply, evidence from outcome"
        ).fetchall()
        assert outcome == [(2, 6, 1, 1, 2, "250 ok", False)]
        assert scalar(conn, "select tally from feed_batch order by id desc limit 1") == [[delivery, "d0.test", 6, 1, 1]]
    assert_counters_equal_rows(mid_db, delivery)


def test_what_nobody_asks_for_is_recorded_without_being_told(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=3)
    records = [OutcomeRecord(delivery, n, E.ACCEPTED, mid_db.clock.now(), reply="250 ok") for n in (1, 2)]
    with mid_db.database.transaction() as conn:
        told = ledger.record_outcomes(conn, mid_db.account_id, records, mid_db.clock.now(), tell=False)
        assert told.rows == ()
        assert rows_of(conn, delivery) == {1: (1, 1, 2, "250 ok"), 2: (1, 1, 2, "250 ok"), 3: (6, 0, 1, "")}
        assert scalar(conn, "select count(*) from outcome") == 2
    assert_counters_equal_rows(mid_db, delivery)


def _reach(state: MessageState) -> list[MessageEvent]:
    return {
        S.PENDING: [],
        S.DEFERRED: [E.PUT_OFF],
        S.UNCERTAIN: [E.LOST],
        S.SENT: [E.ACCEPTED],
        S.FAILED: [E.REFUSED],
        S.CANCELLED: [E.CANCEL],
    }[state]


@pytest.mark.parametrize("state", [s for s in S if s is not S.IGNORED])
def test_every_event_in_every_state_does_what_the_table_says(mid_db: MidDatabase, state: MessageState) -> None:
    delivery = mid_db.delivery(messages=len(E))
    at = mid_db.clock.now()
    for event in _reach(state):
        record(mid_db, *(OutcomeRecord(delivery, n, event, at, reply="first") for n in range(1, len(E) + 1)))

    result = record(mid_db, *(OutcomeRecord(delivery, n, event, at, reply="then") for n, event in enumerate(E, 1)))

    for event, row in zip(E, result.rows, strict=True):
        assert row is not None
        expected = TRANSITIONS[state].get(event)
        assert (row.old_state, row.state, row.changed) == (state, expected or state, expected is not None), event
    with mid_db.database.connection() as conn:
        kept = dict(conn.execute("select id, evidence from outcome where reply = 'then'").fetchall())
        assert kept == {n: event not in TRANSITIONS[state] for n, event in enumerate(E, 1)}
        replies = {n: row[3] for n, row in rows_of(conn, delivery).items()}
        before = "first" if _reach(state) else ""
        assert replies == {n: "then" if event in TRANSITIONS[state] else before for n, event in enumerate(E, 1)}
    assert_counters_equal_rows(mid_db, delivery)


def test_a_deferred_message_put_off_again_counts_the_attempt(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=1)
    put_off = OutcomeRecord(delivery, 1, E.PUT_OFF, mid_db.clock.now(), reply="451 later")
    record(mid_db, put_off)
    (row,) = record(mid_db, put_off).rows
    assert row is not None
    assert (row.state, row.attempts, row.revision, row.changed) == (S.DEFERRED, 2, 3, True)


def test_records_of_one_message_apply_in_their_order(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=2)
    at = mid_db.clock.now()
    result = record(
        mid_db,
        OutcomeRecord(delivery, 1, E.PUT_OFF, at),
        OutcomeRecord(delivery, 2, E.ACCEPTED, at),
        OutcomeRecord(delivery, 1, E.ACCEPTED, at),
        OutcomeRecord(delivery, 1, E.LOST, at),
    )
    assert [row and (row.id, row.old_state, row.state) for row in result.rows] == [
        (1, S.PENDING, S.DEFERRED),
        (2, S.PENDING, S.SENT),
        (1, S.DEFERRED, S.SENT),
        (1, S.SENT, S.SENT),
    ]
    assert result.changed == 3
    assert_counters_equal_rows(mid_db, delivery)


def test_an_unknown_message_is_told_and_blocks_nothing(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=1)
    at = mid_db.clock.now()
    result = record(mid_db, OutcomeRecord(delivery, 9, E.ACCEPTED, at), OutcomeRecord(delivery, 1, E.ACCEPTED, at))
    assert result.rows[0] is None
    assert result.rows[1] is not None
    assert result.unknown == 1
    before = record(mid_db, OutcomeRecord(delivery + 1, 9, E.ACCEPTED, at))
    assert before.rows == (None,)
    with mid_db.database.connection() as conn:
        assert scalar(conn, "select count(*) from feed_batch") == 2  # reception's and the first; none for nobody


def test_another_account_cannot_move_a_row(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=1)
    with mid_db.database.transaction() as conn:
        result = ledger.record_outcomes(
            conn,
            mid_db.account_id + 1,
            [OutcomeRecord(delivery, 1, E.ACCEPTED, mid_db.clock.now())],
            mid_db.clock.now(),
        )
    assert result.rows == (None,)


def test_batches_stay_within_rows_and_bytes(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=12_000, domains=7)
    at = mid_db.clock.now()
    record(mid_db, *(OutcomeRecord(delivery, n, E.ACCEPTED, at, reply="250 ok") for n in range(1, 12_001)))
    with mid_db.database.connection() as conn:
        assert [r for (r,) in conn.execute("select rows from feed_batch where rows > 0 order by id")] == [
            5000,
            5000,
            2000,
        ]
    second = mid_db.delivery(2, messages=4_000)
    record(mid_db, *(OutcomeRecord(second, n, E.REFUSED, at, reply="550 " + "x" * 900) for n in range(1, 4_001)))
    with mid_db.database.connection() as conn:
        sizes = conn.execute(
            "select sum(length(reply)), max(length(reply)) from outcome where delivery_id = %s group by batch_id",
            (second,),
        ).fetchall()
    assert len(sizes) > 1
    assert all(total <= ledger.MAX_BATCH_BYTES and longest == 500 for total, longest in sizes)
    assert_counters_equal_rows(mid_db, delivery)


@pytest.mark.parametrize(
    "reply", ["550 \0 nul", "550 \udcff half", "550 \\u0000 spelled", 'quote " \\ tab\t', "é" * 600]
)
def test_any_text_of_a_server_is_kept(mid_db: MidDatabase, reply: str) -> None:
    delivery = mid_db.delivery(messages=1)
    record(mid_db, OutcomeRecord(delivery, 1, E.REFUSED, mid_db.clock.now(), reply=reply))
    with mid_db.database.connection() as conn:
        kept = scalar(conn, "select reply from message")
    assert kept == reply.replace("\0", " ").replace("\udcff", "?")[:500]


def test_folding_never_shows(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=50, domains=3)
    for n in range(1, 31):
        record(mid_db, OutcomeRecord(delivery, n, E.ACCEPTED if n % 3 else E.PUT_OFF, mid_db.clock.now()))
    with mid_db.database.transaction() as conn:
        before = counters.totals(conn, mid_db.account_id, delivery)
        assert counters.fold(conn, 10) == 10
        assert counters.totals(conn, mid_db.account_id, delivery) == before == {1: 20, 61: 10, 6: 20}
        assert counters.fold(conn) == 21
        assert counters.fold(conn) == 0
        assert counters.totals(conn, mid_db.account_id, delivery) == before
    assert_counters_equal_rows(mid_db, delivery)


def test_recount_lets_the_ledger_win(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=5)
    with mid_db.database.transaction() as conn:
        conn.execute("update message set state = 1 where delivery_id = %s and id < 3", (delivery,))  # behind our back
        assert counters.recount(conn, mid_db.account_id, delivery, mid_db.clock.now()) == {
            ("d0.test", 6): -2,
            ("d0.test", 1): 2,
        }
        assert counters.totals(conn, mid_db.account_id, delivery) == {1: 2, 6: 3}
    assert_counters_equal_rows(mid_db, delivery)


def test_cancelling_leaves_what_a_process_holds(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=10)
    now = mid_db.clock.now()
    record(mid_db, OutcomeRecord(delivery, 1, E.PUT_OFF, now), OutcomeRecord(delivery, 2, E.LOST, now))
    with mid_db.database.transaction() as conn:
        conn.execute(
            "insert into dispatch_batch (account_id, delivery_id, destination, ready_at, ids, owner, expires_at) values "
            "(%(a)s, %(d)s, 'd0.test', %(now)s, '{3,4}', 'mta', %(now)s + interval '1 minute'), "
            "(%(a)s, %(d)s, 'd0.test', %(now)s, '{5}', 'dead', %(now)s - interval '1 minute')",
            {"a": mid_db.account_id, "d": delivery, "now": now},
        )
        assert ledger.cancel_pending(conn, mid_db.account_id, delivery, 5, now) == 5
        assert ledger.cancel_pending(conn, mid_db.account_id, delivery, 5000, now) == 1
        assert counters.totals(conn, mid_db.account_id, delivery) == {7: 6, 62: 1, 6: 3}


def test_writers_of_the_same_messages_in_any_order_never_deadlock(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=400, domains=5)
    applied: Counter[bool] = Counter()
    problems: list[BaseException] = []

    def write(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(8):
                ids = chance.sample(range(1, 401), 200) + chance.sample(range(1, 401), 50)
                events = chance.choices([E.ACCEPTED, E.PUT_OFF, E.LOST, E.REFUSED], k=250)
                result = record(
                    mid_db,
                    *(OutcomeRecord(delivery, n, e, mid_db.clock.now()) for n, e in zip(ids, events, strict=True)),
                )
                applied.update(row.changed for row in result.rows if row)
                with mid_db.database.transaction() as conn:
                    counters.fold(conn)
        except BaseException as exc:  # noqa: BLE001 - handed to the test
            problems.append(exc)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert applied.total() == 6 * 8 * 250
    assert_counters_equal_rows(mid_db, delivery)
    with mid_db.database.connection() as conn:
        assert scalar(conn, "select sum(revision - 1) from message") == applied[True]
        assert scalar(conn, "select count(*) from outcome where not evidence") == applied[True]
        assert scalar(conn, "select count(*) from outcome where evidence") == applied[False]


def test_a_batch_reads_its_own_messages_and_not_the_whole_delivery(mid_db: MidDatabase) -> None:
    """A delivery just received has no statistics; the plan must not depend on them."""
    delivery = mid_db.delivery(messages=100_000)
    records = [OutcomeRecord(delivery, n, E.ACCEPTED, mid_db.clock.now()) for n in range(50_001, 52_001)]
    day = mid_db.clock.now().date()
    params = {"account": mid_db.account_id, "day": day, "records": ledger._encode(records), "tell": True}
    with mid_db.database.transaction() as conn:
        conn.execute("select ensure_day('outcome', %s)", (params["day"],))
        plan = [line for (line,) in conn.execute(b"explain " + ledger._statement(f"message_{delivery >> 32}"), params)]
    scans = [line.strip(" ->") for line in plan if "Scan" in line and " on message_" in line]
    assert len(scans) >= 2
    assert all(scan.startswith("Index Scan using message_") for scan in scans), scans


def test_a_ledger_of_years_costs_a_batch_no_more_than_one_of_a_month(mid_db: MidDatabase) -> None:
    """A join with the whole ledger is planned as one look-up for each month and row, and so read from end to end instead."""
    months = [year * 100 + month for year in range(2020, 2026) for month in range(1, 13)]
    with mid_db.database.connection() as conn:
        for month in months:
            conn.execute("select ensure_month('message', %s)", (month,))
        conn.execute(
            "insert into message (account_id, delivery_id, id, email, domain, data, event_at) "
            "select %s, (month::bigint << 32) + 1, n, 'x@y.test', 'y.test', '{}', now() "
            "from unnest(%s::int[]) month, generate_series(1, 500) n",
            (mid_db.account_id, months),
        )
        conn.execute("vacuum analyze message")
    delivery = mid_db.delivery(messages=1_000)
    records = [OutcomeRecord(delivery, n, E.ACCEPTED, mid_db.clock.now()) for n in range(1, 1_001)]
    with mid_db.database.transaction() as conn:
        assert ledger.record_outcomes(conn, mid_db.account_id, records, mid_db.clock.now()).changed == 1_000
        assert rows_read(conn, "message") <= 4 * len(records), "of this month, and nothing of the 36 000 of the others"


def test_outcomes_of_several_months_are_recorded_in_the_order_given(mid_db: MidDatabase) -> None:
    delivery, at = mid_db.delivery(messages=2), mid_db.clock.now()
    older, gone = (202001 << 32) + 1, (201901 << 32) + 1
    with mid_db.database.connection() as conn:
        conn.execute("select ensure_month('message', 202001)")
        conn.execute(
            "insert into message (account_id, delivery_id, id, email, domain, data, event_at) "
            "values (%s, %s, 1, 'x@y.test', 'y.test', '{}', now())",
            (mid_db.account_id, older),
        )
    result = record(
        mid_db,
        OutcomeRecord(delivery, 1, E.ACCEPTED, at), OutcomeRecord(older, 1, E.PUT_OFF, at), OutcomeRecord(gone, 1, E.ACCEPTED, at),
        OutcomeRecord(delivery, 2, E.REFUSED, at), OutcomeRecord(older, 1, E.ACCEPTED, at),
    )  # fmt: skip
    told = [(row.delivery_id, row.id, row.state) if row else None for row in result.rows]
    assert told == [(delivery, 1, S.SENT), (older, 1, S.DEFERRED), None, (delivery, 2, S.FAILED), (older, 1, S.SENT)]
    assert (result.changed, result.unknown) == (4, 1)

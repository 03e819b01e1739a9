"""A restored mid is released only when every message that may have been sent since the backup is named, whatever its policy."""

from __future__ import annotations

import json

import pytest

from midsource.mid import counters, hold, orders
from midsource.mid.hold import WHY
from midsource.store.database import scalar
from midsource.testing.leases import batches, states
from midsource.testing.mid import MidDatabase
from midsource.testing.reading import rows_read


def started(mid: MidDatabase, serial: int = 1, *, messages: int = 10, policy: str = "hold") -> int:
    """Start a delivery."""
    number = mid.delivery(serial, state=45, messages=messages)
    with mid.database.transaction() as conn:
        conn.execute(
            "update delivery set spec = spec || jsonb_build_object('uncertain_policy', %s::text) where id = %s",
            (policy, number),
        )
    orders.command(mid.database, mid.account_id, number, "start", mid.clock.now())
    return number


def restored(mid: MidDatabase) -> None:
    with mid.database.transaction() as conn:
        conn.execute("update instance set generation = gen_random_uuid()")


def release(mid: MidDatabase) -> tuple[bool, int]:
    answer = hold.release(mid.database, mid.account_id, mid.clock.now(), untold=True)
    return answer.released, answer.uncertain


def moves(mid: MidDatabase) -> dict[tuple[int, int], int]:
    """Count the moves (from state, to state) that the ledger's outcomes tell."""
    with mid.database.connection() as conn:
        rows = conn.execute("select old_state, new_state, count(*) from outcome group by 1, 2").fetchall()
    return {(old, new): n for old, new, n in rows}


def test_what_is_sent_again_is_named_first(mid_db: MidDatabase) -> None:
    """Nothing is sent twice that the ledger does not name uncertain, also where the policy is to send again."""
    number = started(mid_db, policy="resend")
    waiting = batches(mid_db)
    restored(mid_db)
    assert release(mid_db) == (True, 10)
    assert moves(mid_db) == {(6, 62): 10, (62, 6): 10}
    assert states(mid_db) == [6] * 10
    assert batches(mid_db) == waiting, "they wait where they waited"
    with mid_db.database.connection() as conn:
        assert scalar(conn, "select array_agg(distinct reply) from outcome") == [WHY]
        assert scalar(conn, "select sum(rows) from feed_batch where deliveries = array[%s::bigint]", (number,)) == 20
        assert counters.drift(conn, mid_db.account_id, number) == {}
        assert scalar(conn, "select max(attempts) from message") == 0
    assert release(mid_db) == (True, 0), "a repeated release names nothing again"


@pytest.mark.parametrize("policy", ["hold", "resend"])
def test_a_release_in_many_calls_names_each_message_once(
    mid_db: MidDatabase, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "RELEASED_ROWS", 10)
    monkeypatch.setattr(hold, "RELEASED_MESSAGES", 20)
    for serial, messages in ((1, 25), (2, 10), (3, 1)):
        started(mid_db, serial, messages=messages, policy=policy)
    restored(mid_db)
    assert [release(mid_db) for _ in range(3)] == [(False, 20), (True, 16), (True, 0)]
    assert moves(mid_db) == {(6, 62): 36} | ({(62, 6): 36} if policy == "resend" else {})
    with mid_db.database.connection() as conn:
        assert not hold.is_held(conn, mid_db.account_id)


def test_every_delivery_is_named_however_many_are_under_way(
    mid_db: MidDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest are those most likely sent since the backup."""
    monkeypatch.setattr(hold, "HELD_DELIVERIES", 2)
    for serial in range(1, 6):
        started(mid_db, serial, messages=1)
    restored(mid_db)
    assert release(mid_db) == (True, 5)
    assert states(mid_db) == [62] * 5
    assert orders.sweep(mid_db.database, mid_db.clock.now()) == ()
    with mid_db.database.connection() as conn:
        assert scalar(conn, "select count(*) from delivery where state = 95") == 5, "nothing of them waits any more"


def test_the_hold_stays_until_the_last_delivery_is_named(mid_db: MidDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "RELEASE_TURNS", 2)
    for serial in range(1, 4):
        started(mid_db, serial, messages=1)
    restored(mid_db)
    assert release(mid_db) == (False, 2)
    with mid_db.database.connection() as conn:
        assert hold.is_held(conn, mid_db.account_id)
    assert release(mid_db) == (True, 1)


def test_a_second_restore_in_the_middle_of_a_release_names_anew(
    mid_db: MidDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "RELEASED_ROWS", 10)
    monkeypatch.setattr(hold, "RELEASED_MESSAGES", 10)
    started(mid_db, messages=15, policy="resend")
    restored(mid_db)
    assert release(mid_db) == (False, 10)
    restored(mid_db)
    assert [release(mid_db), release(mid_db)] == [(False, 10), (True, 5)]
    assert moves(mid_db)[6, 62] == 25


def test_a_page_of_what_is_known_reads_its_own_messages_and_not_the_whole_delivery(mid_db: MidDatabase) -> None:
    """A database just put back has no statistics, and a delivery of a million is told in a thousand pages."""
    number = mid_db.delivery(messages=20_000)
    now = mid_db.clock.now()
    rows = [
        {
            "id": id_,
            "state": 1,
            "reason": 0,
            "attempts": 1,
            "revision": 2,
            "event_at": now.isoformat(),
            "message_id": "",
        }
        for id_ in range(10_001, 10_501)
    ]
    key = {"account": mid_db.account_id, "delivery": number, "rows": json.dumps(rows)}
    with mid_db.database.transaction() as conn:
        before = rows_read(conn, "message")  # what this connection did earlier and has not told yet
        changed = conn.execute(hold._KNOWN, key).fetchall()
        assert sum(count for *_, count in changed) == len(rows)
        assert rows_read(conn, "message") - before <= 4 * len(rows)

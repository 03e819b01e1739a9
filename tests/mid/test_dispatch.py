from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from midsource.mid import dispatch
from midsource.mid.dispatch import Due, Lease, Look
from midsource.policy.paths import Head, Want
from midsource.testing.mid import MidDatabase


def batches(mid: MidDatabase, delivery: int, size: int = 500) -> None:
    with mid.database.transaction() as conn:
        conn.execute(
            "insert into dispatch_batch (account_id, delivery_id, destination, ready_at, ids) "
            "select account_id, delivery_id, domain, now(), array_agg(id order by id) from "
            "(select *, (row_number() over (partition by domain order by id) - 1) / %s as cut from message "
            " where delivery_id = %s) m group by account_id, delivery_id, domain, cut",
            (size, delivery),
        )


def lease(mid: MidDatabase, *wants: Want, owner: str = "one", seconds: float = 60) -> list[Lease]:
    with mid.database.transaction() as conn:
        return dispatch.lease(conn, owner, wants, seconds)


def heads(mid: MidDatabase, look: Look | None = None) -> list[Head]:
    with mid.database.transaction() as conn:
        return (look or Look())(conn)[1]


def test_look_names_each_destination_with_a_ready_batch_once(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=30, domains=3)
    batches(mid_db, delivery, size=2)
    assert heads(mid_db) == [Head(mid_db.account_id, delivery, f"d{n}.test") for n in range(3)]


@pytest.mark.parametrize("state", [25, 45, 71, 72, 75, 85, 95])
def test_nothing_is_leased_of_a_delivery_that_does_not_send(mid_db: MidDatabase, state: int) -> None:
    delivery = mid_db.delivery(messages=3, state=state)
    batches(mid_db, delivery)
    assert heads(mid_db) == []
    assert lease(mid_db, Want(Head(mid_db.account_id, delivery, "d0.test"), 1)) == []


def test_a_batch_due_later_is_neither_seen_nor_leased(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=3)
    now = mid_db.clock.now()
    with mid_db.database.transaction() as conn:
        dispatch.schedule(conn, [Due(mid_db.account_id, delivery, "d0.test", now + timedelta(minutes=5), 1)], now)
    assert heads(mid_db) == []
    assert lease(mid_db, Want(Head(mid_db.account_id, delivery, "d0.test"), 1)) == []


def test_look_reaches_every_destination_in_turns(mid_db: MidDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "HEADS_A_LOOK", 16)
    delivery = mid_db.delivery(messages=50, domains=50)
    batches(mid_db, delivery)
    look, seen = Look(), set()
    for _ in range(4):
        found = heads(mid_db, look)
        assert len(found) <= 16
        seen |= {head.destination for head in found}
    assert len(seen) == 50


def test_two_owners_never_lease_the_same_batch(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=400)
    batches(mid_db, delivery, size=2)
    want = Want(Head(mid_db.account_id, delivery, "d0.test"), 7)
    found: list[Lease] = []

    def take(owner: str) -> None:
        while taken := lease(mid_db, want, owner=owner):
            found.extend(taken)

    threads = [threading.Thread(target=take, args=(f"owner{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(id_ for taken in found for id_ in taken.ids) == list(range(1, 401))


def test_each_lease_has_a_larger_token_and_an_old_one_neither_renews_nor_releases(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=3)
    batches(mid_db, delivery)
    want = Want(Head(mid_db.account_id, delivery, "d0.test"), 1)
    (first,) = lease(mid_db, want)
    with mid_db.database.transaction() as conn:
        assert dispatch.renew(conn, "one", {first.batch_id: first.token}) == {first.batch_id}
        assert dispatch.release(conn, "one", {first.batch_id: first.token}) == 1
    (second,) = lease(mid_db, want, owner="two")
    assert second.token > first.token
    with mid_db.database.transaction() as conn:
        assert dispatch.renew(conn, "one", {first.batch_id: first.token}) == set()
        assert dispatch.release(conn, "one", {first.batch_id: first.token}) == 0
        assert dispatch.renew(conn, "two", {second.batch_id: second.token}) == {second.batch_id}


def test_load_returns_what_waits_and_takes_the_rest_out_of_the_batch(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=4)
    batches(mid_db, delivery)
    with mid_db.database.transaction() as conn:
        conn.execute("update message set state = 1 where id = 2")
        conn.execute("update message set state = 61, attempts = 1 where id = 3")
        conn.execute("update message set state = 62 where id = 4")
    (taken,) = lease(mid_db, Want(Head(mid_db.account_id, delivery, "d0.test"), 1))
    with mid_db.database.transaction() as conn:
        loaded = dispatch.load(conn, [taken])
        assert [(m.id, m.attempts) for m in loaded[taken.batch_id]] == [(1, 0), (3, 1)]
        assert conn.execute("select ids from dispatch_batch").fetchone() == ([1, 3],)


def test_deferred_messages_share_batches_by_destination_and_time(mid_db: MidDatabase) -> None:
    delivery = mid_db.delivery(messages=1)
    now = mid_db.clock.now()
    account = mid_db.account_id
    dues = [
        Due(account, delivery, "a.test", now + timedelta(seconds=30, milliseconds=n % 900), n) for n in range(1, 1201)
    ]
    dues += [Due(account, delivery, "b.test", now + timedelta(seconds=3_600 + n % 59), n) for n in range(1201, 1301)]
    with mid_db.database.transaction() as conn:
        dispatch.schedule(conn, dues, now)
        rows = conn.execute("select destination, cardinality(ids) from dispatch_batch").fetchall()
        early = conn.execute("select count(*) from dispatch_batch where ready_at < now() + interval '30 s'").fetchone()
    assert sorted(n for destination, n in rows if destination == "a.test") == [1, 199, 500, 500]
    assert len(rows) <= 6
    assert early == (0,)

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from midsource.mid import aside, dispatch, orders
from midsource.mid.records import Outcome, Sealed
from midsource.mid.settle import Settled, settle, try_set_aside
from midsource.model.message import MessageEvent
from midsource.testing.leases import again, batches, leased, outcome, states
from midsource.testing.mid import MidDatabase

E = MessageEvent


def settled(mid: MidDatabase, number: int, *outcomes: Outcome, process: str = "one") -> Settled:
    with mid.database.transaction() as conn:
        return settle(conn, process, Sealed(1, number, outcomes), mid.clock.now())


def test_each_message_leaves_its_batch_with_its_outcome_and_an_empty_batch_goes(mid_db: MidDatabase) -> None:
    lease, now = leased(mid_db, 3), mid_db.clock.now()
    settled(mid_db, 1, outcome(lease, 2, E.ACCEPTED, now))
    assert batches(mid_db) == [[1, 3]]
    settled(mid_db, 2, outcome(lease, 1, E.ACCEPTED, now), outcome(lease, 3, E.REFUSED, now))
    assert batches(mid_db) == []
    assert states(mid_db) == [1, 1, 2]


def test_a_message_put_off_moves_to_a_batch_of_its_own(mid_db: MidDatabase) -> None:
    lease, now = leased(mid_db, 2), mid_db.clock.now()
    done = settled(mid_db, 1, outcome(lease, 1, E.PUT_OFF, now, now + timedelta(minutes=5)))
    assert done.again == 1
    assert batches(mid_db) == [[2], [1]]
    assert states(mid_db) == [61, 6]


def test_a_commit_of_unknown_fate_is_done_once(mid_db: MidDatabase) -> None:
    lease, now = leased(mid_db, 2), mid_db.clock.now()
    first = settled(mid_db, 1, outcome(lease, 1, E.PUT_OFF, now, now + timedelta(minutes=5)))
    second = settled(mid_db, 1, outcome(lease, 1, E.PUT_OFF, now, now + timedelta(minutes=5)))
    assert (first.repeated, second.repeated) == (False, True)
    assert batches(mid_db) == [[2], [1]]
    with mid_db.database.connection() as conn:
        assert conn.execute("select attempts, (select count(*) from outcome) from message where id = 1").fetchone() == (
            1,
            1,
        )


def test_an_uncertain_message_is_sent_again_only_where_the_policy_planned_it(mid_db: MidDatabase) -> None:
    lease, now = leased(mid_db, 2), mid_db.clock.now()
    settled(mid_db, 1, outcome(lease, 1, E.LOST, now), outcome(lease, 2, E.LOST, now, now + timedelta(seconds=9)))
    assert states(mid_db) == [62, 6]
    assert batches(mid_db) == [[2]]
    with mid_db.database.connection() as conn:
        moves = conn.execute("select old_state, new_state from outcome where id = 2 order by batch_id").fetchall()
    assert moves == [(6, 62), (62, 6)], "it was named uncertain first"


@pytest.mark.parametrize("event", [E.ACCEPTED, E.PUT_OFF])
def test_a_fenced_outcome_is_recorded_and_plans_nothing(mid_db: MidDatabase, event: MessageEvent) -> None:
    old, now = leased(mid_db, 2), mid_db.clock.now()
    with mid_db.database.transaction() as conn:
        dispatch.release(conn, "one", {old.batch_id: old.token})
    new = again(mid_db, old.delivery_id, "two")
    late = outcome(old, 1, event, now, now + timedelta(minutes=5))
    done = settled(mid_db, 1, late)
    assert (done.fenced, done.again, done.recorded) == (frozenset({old.batch_id}), 0, 1)
    assert batches(mid_db) == [[1, 2]], "the new owner's batch is untouched"
    assert settled(mid_db, 2, late).recorded == 0, "recognised, were it told a second time"
    settled(mid_db, 1, outcome(new, 1, E.ACCEPTED, now), outcome(new, 2, E.ACCEPTED, now), process="two")
    assert states(mid_db) == [1, 1]
    with mid_db.database.connection() as conn:
        copies = conn.execute(
            "select evidence from outcome where id = 1 and new_state = 1 order by batch_id"
        ).fetchall()
    assert copies == ([(False,), (True,)] if event is E.ACCEPTED else [(False,)]), "a second copy is evidence"


def test_an_outcome_of_a_message_that_left_its_batch_is_recognised_under_any_number(mid_db: MidDatabase) -> None:
    """The machine died and took the number with it, not the outcome: replay gives it another one."""
    lease, now = leased(mid_db, 2), mid_db.clock.now()
    known = outcome(lease, 1, E.PUT_OFF, now, now + timedelta(minutes=5))
    settled(mid_db, 1, known)
    assert settled(mid_db, 1 << 62, known).again == 0
    assert batches(mid_db) == [[2], [1]], "one retry, not two"
    with mid_db.database.connection() as conn:
        assert conn.execute("select attempts from message where id = 1").fetchone() == (1,)
        assert conn.execute("select count(*) from outcome").fetchone() == (1,)


def test_a_refused_outcome_loses_its_words_and_holds_up_no_other(mid_db: MidDatabase) -> None:
    lease, now = leased(mid_db, 40), mid_db.clock.now()
    outcomes = [outcome(lease, id_, E.ACCEPTED, now) for id_ in range(1, 41)]
    outcomes[16] = msgspec.structs.replace(outcomes[16], reason=1 << 20)  # no smallint
    assert settled(mid_db, 1, *outcomes).recorded == 40
    assert states(mid_db) == [1] * 40, "it was sent, and that is what counts"
    with mid_db.database.connection() as conn:
        assert conn.execute("select reply, reason from message where id = 17").fetchone() == (
            "the reply could not be stored",
            0,
        )


@pytest.mark.parametrize(("event", "state"), [(E.ACCEPTED, 1), (E.PUT_OFF, 61)])
def test_an_outcome_refused_in_every_form_is_set_aside_and_tried_until_it_is_taken(
    mid_db: MidDatabase, event: MessageEvent, state: int
) -> None:
    lease, now = leased(mid_db, 3), mid_db.clock.now()
    with mid_db.database.connection() as conn:
        conn.execute("alter table message add constraint poison check (id <> 2 or state = 6) not valid")
    settled(mid_db, 1, outcome(lease, 1, E.ACCEPTED, now), outcome(lease, 2, event, now, now + timedelta(minutes=5)))
    assert states(mid_db) == [1, 6, 6]
    assert batches(mid_db) == [[3]], "it was tried: it is in no batch, or it would be sent again"
    with mid_db.database.connection() as conn:
        conn.execute("delete from dispatch_batch")
    orders.sweep(mid_db.database, mid_db.clock.now())
    assert batches(mid_db) == [[3]], "nor is it taken for one that was forgotten"
    assert try_set_aside(mid_db.database, now) == 0, "not due yet"
    with mid_db.database.connection() as conn:
        conn.execute("update outcome_aside set try_at = now()")
    assert try_set_aside(mid_db.database, now) == 0
    with mid_db.database.connection() as conn:
        assert conn.execute("select tries, try_at > now() + interval '100 s', why from outcome_aside").fetchone() == (
            2,
            True,
            "CheckViolation 23514",
        )
        conn.execute("alter table message drop constraint poison")
        conn.execute("update outcome_aside set try_at = now()")
    assert try_set_aside(mid_db.database, now) == 1
    assert states(mid_db) == [1, state, 6]
    assert batches(mid_db) == ([[3], [2]] if event is E.PUT_OFF else [[3]])
    with mid_db.database.connection() as conn:
        assert aside.count(conn) == 0


def test_a_late_answer_to_a_try_that_was_counted_counts_no_other(mid_db: MidDatabase) -> None:
    lease, now = leased(mid_db, 1), mid_db.clock.now()
    settled(mid_db, 1, outcome(lease, 1, E.LOST, now))
    settled(mid_db, 2, outcome(lease, 1, E.ACCEPTED, now + timedelta(seconds=9)))
    with mid_db.database.connection() as conn:
        assert conn.execute("select state, attempts from message").fetchone() == (1, 1)


def test_what_runs_into_the_time_limit_of_the_server_is_halved_and_stands_still_for_nothing(
    mid_db: MidDatabase,
) -> None:
    """A row takes 5 ms, a statement may take 400: a hundred do not pass in one, and were tried in one for ever."""
    lease, now = leased(mid_db, 100), mid_db.clock.now()
    with mid_db.database.connection() as conn:
        conn.execute(
            "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.005); return new; end $$; "
            "create trigger slow before update on message for each row execute function slow()"
        )
    with mid_db.database.transaction() as conn:
        conn.execute("set local statement_timeout = '400ms'")
        done = settle(conn, "one", Sealed(1, 1, tuple(outcome(lease, n, E.ACCEPTED, now) for n in range(1, 101))), now)
    assert (done.recorded, set(states(mid_db)), batches(mid_db)) == (100, {1}, [])

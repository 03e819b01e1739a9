from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midsource.policy.paths import (
    BATCH_MESSAGES,
    BATCHES_A_TURN,
    Head,
    Limits,
    Queue,
    plan_connections,
    plan_leases,
    settle_credit,
)

LIMITS = Limits(connections_per_destination=4)
BIG, SMALL = Head(1, 11, "gmail.example"), Head(2, 22, "gmail.example")


def test_a_new_destination_gets_one_batch() -> None:
    wants = plan_leases([BIG], {}, {}, 0, LIMITS)
    assert [(want.head, want.batches) for want in wants] == [(BIG, 1)]


def test_a_destination_with_enough_waiting_gets_nothing() -> None:
    assert plan_leases([BIG], {"gmail.example": Queue(waiting=100)}, {}, 0, LIMITS) == []


def test_a_fast_destination_is_fed_for_a_second_and_never_more_than_a_turn() -> None:
    def batches(rate: float) -> int:
        return sum(w.batches for w in plan_leases([BIG], {"gmail.example": Queue(rate=rate)}, {}, 0, LIMITS))

    assert [batches(rate) for rate in (10, 600, 1_400, 90_000)] == [1, 2, 3, BATCHES_A_TURN]


def test_a_resting_destination_gets_neither_leases_nor_connections_and_stops_no_other() -> None:
    other = Head(1, 11, "orange.example")
    queues = {"gmail.example": Queue(waiting=50, rests=True), "orange.example": Queue(waiting=50)}
    assert [want.head for want in plan_leases([BIG, other], queues, {}, 0, LIMITS)] == [other]
    assert plan_connections(queues, LIMITS) == {"orange.example": 4}


def test_nothing_is_leased_beyond_what_may_be_held() -> None:
    heads = [Head(1, 11, f"d{n}.example") for n in range(100)]
    wants = plan_leases(heads, {}, {}, 15_000, LIMITS)
    assert sum(want.batches for want in wants) * BATCH_MESSAGES == 5_000


@given(st.integers(1, 500), st.integers(1, 500))
def test_two_accounts_share_a_destination_evenly_whatever_their_batches_hold(big: int, small: int) -> None:
    sizes = {1: big, 2: small}
    credit: dict[int, float] = {}
    got = {1: 0, 2: 0}
    for _ in range(400):
        wants = plan_leases([BIG, SMALL], {}, credit, 0, LIMITS)
        leased = {want.head.account_id: want.batches * sizes[want.head.account_id] for want in wants}
        for account, messages in leased.items():
            got[account] += messages
        credit = settle_credit(credit, leased, {1, 2})
    assert abs(got[1] - got[2]) <= 2 * BATCH_MESSAGES


def test_an_idle_account_earns_no_credit() -> None:
    assert settle_credit({1: 300.0, 2: -300.0}, {1: 500}, {1}) == {1: 300.0}


def test_a_crowded_destination_keeps_what_it_has_and_gets_a_first_one_again() -> None:
    assert plan_connections({"a": Queue(waiting=99, connections=2, crowded=True)}, LIMITS) == {}
    assert plan_connections({"a": Queue(waiting=99, crowded=True)}, LIMITS) == {"a": 4}


def test_connections_follow_what_waits() -> None:
    assert plan_connections({"a": Queue(waiting=1), "b": Queue(waiting=25), "c": Queue(waiting=999)}, LIMITS) == {
        "a": 1,
        "b": 3,
        "c": 4,
    }
    assert plan_connections({"a": Queue(waiting=999, connections=4)}, LIMITS) == {}


@given(st.dictionaries(st.text("abc", min_size=1), st.builds(Queue, st.integers(0, 999), st.integers(0, 4))))
def test_the_process_limit_is_kept_and_everyone_gets_a_first_connection_before_anyone_a_second(
    queues: dict[str, Queue],
) -> None:
    limits = Limits(connections_per_destination=4, connections=8)
    opens = plan_connections(queues, limits)
    open_now = sum(queue.connections for queue in queues.values())
    assert sum(opens.values()) <= max(0, limits.connections - open_now)
    without = [d for d, queue in queues.items() if queue.waiting and not queue.connections and d not in opens]
    if without:
        assert all(n == 1 for n in opens.values())

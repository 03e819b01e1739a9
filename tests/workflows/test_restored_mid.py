"""A mid that was put back from a backup sends nothing before it was told what is known, and then nothing twice unasked."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from midsource.marketing import accounts, gaps, handover, orders, reconcile_reports, telling
from midsource.marketing import reconcile as comparison
from midsource.mid import counters, dispatch, hold
from midsource.mid.dispatch import Look
from midsource.model.errors import Conflict
from midsource.net.clock import SystemClock
from midsource.policy.paths import Head, Want
from midsource.store.database import scalar
from midsource.testing.link import LinkedHalves
from midsource.testing.reading import rows_read
from midsource.wire.hold import KnownRow
from midsource.workflows import delivery_logs, reconcile

PEOPLE = 300


class Ticking(SystemClock):
    """A clock on which each look takes a second, however fast the machine is."""

    def __init__(self) -> None:
        self._looks = 0

    def boot_seconds(self) -> float:
        self._looks += 1
        return float(self._looks)


def started(halves: LinkedHalves, serial: int = 1, policy: str = "hold") -> int:
    number = halves.prepared(PEOPLE, serial=serial)
    with halves.marketing.transaction() as conn:
        conn.execute("update delivery set uncertain_policy = %s where id = %s", (policy, number))
    halves.run(handover.hand_over, number)
    with halves.marketing.transaction() as conn:
        orders.order(conn, number, "start", by="test", now=halves.clock.now())
    halves.run(orders.carry_order, number)
    return number


def restore(halves: LinkedHalves, number: int, *, renewed: bool = True) -> None:
    """Put the mid back to the moment after the start: what it recorded since is gone."""
    with halves.mid.transaction() as conn:
        conn.execute(
            "update message set state = 6, revision = 1, attempts = 0, message_id = '' where delivery_id = %s",
            (number,),
        )
        conn.execute("delete from outcome")
        conn.execute("delete from message_total where delivery_id = %s", (number,))
        conn.execute("delete from feed_batch")
        conn.execute("select setval('feed_seq', 1, false)")
        conn.execute("delete from feed_ack")
        rows = conn.execute(
            "select domain, count(*) from message where delivery_id = %s group by 1", (number,)
        ).fetchall()
        tally = [(number, domain, None, 6, n) for domain, n in rows]
        counters.write_batch(conn, halves.mid_account, [number], halves.clock.now(), tally)
        if renewed:
            conn.execute("update instance set generation = gen_random_uuid()")


def sending(halves: LinkedHalves) -> int:
    """Return how many batches an mta process would get."""
    with halves.mid.connection() as conn, conn.transaction(force_rollback=True):
        deliveries, heads = Look()(conn)
        assert bool(deliveries) == bool(heads)
        wants = [Want(Head(head.account_id, head.delivery_id, head.destination), 10) for head in heads]
        return len(dispatch.lease(conn, "mta", wants))


def pull(halves: LinkedHalves) -> None:
    with halves.marketing.connection() as conn:
        conn.execute("update delivery set state = 75 where state in (51, 55, 62)")
        delivery_logs.run_once(halves.context())
        conn.execute("update delivery set state = 55 where state = 75")


def states(halves: LinkedHalves, number: int) -> dict[int, int]:
    with halves.mid.connection() as conn:
        return counters.totals(conn, halves.mid_account, number)


def test_it_is_held_told_and_released(halves: LinkedHalves) -> None:
    number = started(halves)
    halves.sent(number, range(1, 101))
    pull(halves)
    restore(halves, number)
    assert sending(halves) == 0
    with halves.marketing.connection() as conn:
        assert not accounts.get(conn, accounts.DEFAULT_NAME).last_problem
    pull(halves)  # the feed says rewound
    with halves.marketing.connection() as conn:
        assert {gap.cause for gap in gaps.unfilled(conn)} == {"rewound"}
    reconcile.run_once(halves.context())
    assert states(halves, number) == {1: 100, 62: 200}
    assert halves.lines("200 messages may have been sent since its backup")
    with halves.mid.connection() as conn:
        assert not hold.is_held(conn, halves.mid_account)
        assert scalar(conn, "select count(*) from message where state = 1 and revision = 2") == 100
    pull(halves)
    assert halves.same_on_both_sides(number)
    assert halves.totals_agree(number)


def test_a_database_put_back_without_a_new_generation_is_noticed(halves: LinkedHalves) -> None:
    number = started(halves)
    halves.sent(number, range(1, 101))
    pull(halves)
    restore(halves, number, renewed=False)
    assert sending(halves) > 0  # nobody can know yet
    pull(halves)
    assert sending(halves) == 0
    reconcile.run_once(halves.context())
    assert states(halves, number) == {1: 100, 62: 200}


def test_with_the_policy_resend_what_waits_is_sent_and_what_is_known_is_not(halves: LinkedHalves) -> None:
    number = started(halves, policy="resend")
    halves.sent(number, range(1, 101))
    pull(halves)
    restore(halves, number)
    reconcile.run_once(halves.context())
    assert halves.lines("200 messages may have been sent since its backup")
    assert states(halves, number) == {1: 100, 6: 200}
    with halves.mid.connection() as conn:
        named = scalar(conn, "select count(*) from outcome where (old_state, new_state) in ((6, 62), (62, 6))")
    assert named == 400, "what is sent again was named uncertain"
    assert sending(halves) > 0
    pull(halves)
    assert halves.same_on_both_sides(number)
    assert halves.totals_agree(number)


def test_more_deliveries_than_are_named_at_once_are_told_in_one_run(
    halves: LinkedHalves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "HELD_DELIVERIES", 2)
    numbers = [started(halves, serial) for serial in (1, 2, 3)]
    for number in numbers:
        halves.sent(number, range(1, 101))
    pull(halves)
    for number in numbers:
        restore(halves, number)
    reconcile.run_once(halves.context())
    assert halves.lines("known of 3 deliveries under way; 600 messages may have been sent")
    assert [states(halves, number) for number in numbers] == 3 * [{1: 100, 62: 200}]


def test_what_was_not_due_yet_goes_on_waiting(halves: LinkedHalves) -> None:
    number = started(halves)
    with halves.mid.transaction() as conn:
        conn.execute("update dispatch_batch set ready_at = now() + interval '1 day' where destination = 'sapo.example'")
    restore(halves, number)
    reconcile.run_once(halves.context())
    assert states(halves, number) == {6: 100, 62: 200}


def test_nothing_is_released_untold_unless_an_operator_says_so(halves: LinkedHalves) -> None:
    number = started(halves)
    halves.sent(number, range(1, 101))
    pull(halves)
    restore(halves, number)
    with pytest.raises(Conflict, match="1 deliveries were not told about yet"):
        hold.release(halves.mid, halves.mid_account, halves.clock.now())
    answer = hold.release(halves.mid, halves.mid_account, halves.clock.now(), untold=True)
    assert (answer.released, answer.uncertain) == (True, PEOPLE)
    with pytest.raises(Conflict, match="nothing is held here"):
        hold.take_known(halves.mid, halves.mid_account, number, (), halves.clock.now(), last=True)
    with halves.marketing.connection() as conn:
        conn.execute("update delivery set state = 55")
    report_before = states(halves, number)
    assert report_before == {62: PEOPLE}


def test_a_delivery_too_large_for_one_slice_is_told_over_several(
    halves: LinkedHalves, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each slice began again at its first message, so the last page never went out and nothing was ever sent again."""
    number = started(halves)
    halves.sent(number, range(1, 101))
    pull(halves)
    restore(halves, number)
    monkeypatch.setattr(telling, "KNOWN_ROWS", 20)
    told: list[int] = []

    def one_page_a_slice(account: str) -> bool:
        clock = Ticking()
        with accounts.open_client(halves.marketing, halves.home, account, halves.clock) as client:
            done = telling.tell(replace(halves.context(), clock=clock), client, account, clock.boot_seconds() + 1.5)
        with halves.mid.connection() as conn:
            told.append(scalar(conn, "select count(*) from message where state = 1"))
        return done

    for _ in range(10):
        if one_page_a_slice(accounts.DEFAULT_NAME):
            break
    assert told == [20, 40, 60, 80, 100, 100]
    assert states(halves, number) == {1: 100, 62: 200}
    with halves.mid.connection() as conn:
        assert not hold.is_held(conn, halves.mid_account)


def test_a_mid_restored_once_more_is_told_from_the_beginning(halves: LinkedHalves) -> None:
    number = started(halves)
    restore(halves, number)
    row = KnownRow(id=7, state=1, reason=0, attempts=1, revision=2, event_at=halves.clock.now(), message_id="")
    hold.take_known(halves.mid, halves.mid_account, number, (row,), halves.clock.now(), last=False)
    answer = hold.look(halves.mid, halves.mid_account)
    assert (answer.telling, answer.told_to) == (number, 7)
    restore(halves, number)
    answer = hold.look(halves.mid, halves.mid_account)
    assert (answer.telling, answer.told_to) == (0, 0)


def test_a_gap_is_not_filled_by_a_comparison_that_compared_nothing(halves: LinkedHalves) -> None:
    number = started(halves)
    halves.sent(number, range(1, 101))
    pull(halves)
    now = halves.clock.now()
    with halves.marketing.transaction() as conn:
        gaps.record(conn, accounts.DEFAULT_NAME, "logs", "set by hand", now - timedelta(1), now + timedelta(1))
    restore(halves, number)
    with halves.marketing.transaction() as conn:
        report = reconcile_reports.begin(conn, number, accounts.DEFAULT_NAME, "test", halves.clock.now(), dry_run=False)
    with accounts.open_client(halves.marketing, halves.home, accounts.DEFAULT_NAME, halves.clock) as client:
        assert comparison.compare(halves.context(), client, report, halves.clock.boot_seconds() + 60)
    assert report.problem == reconcile_reports.UNTOLD
    with halves.marketing.transaction() as conn:
        assert gaps.fill(conn) == []
        assert [gap.cause for gap in gaps.unfilled(conn)] == ["set by hand"]


def test_telling_reads_each_log_row_once_and_not_all_that_is_left_for_each_page(
    halves: LinkedHalves, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of a delivery under way may have no statistics yet."""
    number, rows = started(halves), 20_000
    monkeypatch.setattr(telling, "KNOWN_ROWS", 500)
    with halves.marketing.transaction() as conn:
        conn.execute(
            "insert into broad_log (delivery_id, id, recipient_id, state, event_at, revision) "
            "select %s, n, n, 1, now(), 2 from generate_series(1001, 1000 + %s) n",
            (number, rows),
        )
        before, after, pages = rows_read(conn, "broad_log"), 0, 0
        while page := telling._page(conn, number, after):
            after, pages = page[-1].id, pages + 1
        assert pages >= rows / 500
        assert rows_read(conn, "broad_log") - before <= 2 * rows

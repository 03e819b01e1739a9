"""The hand-over through a link that fails in every way links fail: no row lost, none doubled, and every failure told."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable

import pytest

from midsource.engine.work import Cancelled
from midsource.marketing import accounts, handover, link_journal, orders, upload
from midsource.model.errors import MidsourceError, RemoteRefused
from midsource.store.database import scalar
from midsource.testing.link import LinkedHalves
from midsource.testing.proxy import (
    Answer,
    CutAnswer,
    CutRequest,
    Fault,
    FaultProxy,
    ForwardThenAnswer,
    Pass,
    Seen,
    Twice,
)
from midsource.wire import rows as wire_rows
from midsource.wire.client import MidClient
from midsource.wire.schema import PartRow

LINE = re.compile(
    r"^(SubmitMidSourcing|AppendDeliveryPart part [0-9.]+ of [0-9]+|FinalizeMidPreparation|ExecCommand \w+): "
    r"(HTTP [0-9]{3}.*|no answer \(.+\)), attempt [0-9]+, .+$"
)


def is_part(seen: Seen) -> bool:
    return seen.method == "PUT" and "/parts/" in seen.path


def every(nth: int, fault: Fault) -> Callable[[Seen], Fault]:
    """Let every nth part upload fail so."""
    count = [0]

    def decide(seen: Seen) -> Fault:
        if not is_part(seen):
            return Pass()
        count[0] += 1
        return fault if count[0] % nth == 0 else Pass()

    return decide


def handed_over(halves: LinkedHalves, delivery: int, people: int) -> None:
    """Check the sums of design 9 and every row on both sides."""
    with halves.marketing.connection() as conn:
        row = conn.execute(
            "select state, targeted, excluded, handed_over, refused, error from delivery where id = %s", (delivery,)
        ).fetchone()
    assert row is not None
    state, targeted, excluded, handed, refused, error = row
    assert (state, error) == (45, "")
    assert targeted == handed + excluded
    assert handed + refused == people
    with halves.mid.connection() as conn:
        assert scalar(conn, "select count(*) from message where delivery_id = %s", (delivery,)) == handed
        assert (
            scalar(conn, "select coalesce(sum(accepted), 0) from delivery_part where delivery_id = %s", (delivery,))
            == handed
        )
        assert scalar(conn, "select state from delivery where id = %s", (delivery,)) == 45
    assert halves.same_on_both_sides(delivery)
    assert halves.totals_agree(delivery)


def events(halves: LinkedHalves) -> list[str]:
    with halves.marketing.connection() as conn:
        return [line for (line,) in conn.execute("select line from link_event order by id")]


def test_every_row_arrives_once(halves: LinkedHalves) -> None:
    delivery = halves.prepared(2300, part_rows=500, excluded=7)
    report = halves.run(handover.hand_over, delivery)
    assert (report.rows_written, report.then) == (2300, ())
    handed_over(halves, delivery, 2300)
    assert halves.shown[-1] == {"done": 5, "of": 5, "unit": "parts", "phase": "hand-over"}
    assert events(halves) == []
    with halves.marketing.connection() as conn:
        phases = scalar(conn, "select phases from delivery")
    assert [(phase["phase"], phase["rows"]) for phase in phases] == [("hand-over", 2300)]


def test_an_empty_delivery_is_handed_over_too(halves: LinkedHalves) -> None:
    delivery = halves.prepared(0, excluded=3)
    halves.run(handover.hand_over, delivery)
    handed_over(halves, delivery, 0)


def test_a_confirmed_delivery_is_started_by_the_next_job(halves: LinkedHalves) -> None:
    delivery = halves.prepared(100)
    with halves.marketing.transaction() as conn:
        orders.order(conn, delivery, "start", "alice", halves.clock.now())
        assert scalar(conn, "select kind from job") == "handover"
    assert halves.run(handover.hand_over, delivery).then == ("order",)
    halves.run(orders.carry_order, delivery)
    with halves.mid.connection() as conn:
        assert scalar(conn, "select state from delivery") == 51


@pytest.mark.parametrize(
    "fault",
    [
        Answer(408),
        Answer(500),
        Answer(503),
        ForwardThenAnswer(408),
        ForwardThenAnswer(502),
        CutRequest(700),
        CutAnswer(20),
        Twice(),
    ],
    ids=repr,
)
def test_every_third_part_fails(halves: LinkedHalves, fault: Fault) -> None:
    delivery = halves.prepared(3000, part_rows=250)
    with FaultProxy(halves.port, every(3, fault)) as proxy:
        halves.link_to(proxy.url)
        halves.run(handover.hand_over, delivery)
    handed_over(halves, delivery, 3000)
    told = events(halves)
    assert bool(told) != isinstance(fault, Twice)
    assert all(LINE.match(line) for line in told), told
    assert all(line in [said for _, said in halves.journal] for line in told)


def test_a_failure_is_told_in_the_words_operators_search_for(halves: LinkedHalves) -> None:
    delivery = halves.prepared(1000, part_rows=1000)
    with FaultProxy(halves.port) as proxy:
        proxy.fault = lambda seen: Answer(408) if is_part(seen) and len(halves.lines("HTTP 408")) < 2 else Pass()
        halves.link_to(proxy.url)
        halves.run(handover.hand_over, delivery)
    first, second = events(halves)[:2]
    assert re.fullmatch(
        r"AppendDeliveryPart part 1 of 1: HTTP 408, attempt 1, next with 500 rows in (1|0\.[0-9]) s", first
    )
    assert re.fullmatch(
        r"AppendDeliveryPart part 1\.[12] of 1: HTTP 408, attempt 2, next with 250 rows in [12] s", second
    )
    with halves.marketing.connection() as conn:
        stored = conn.execute(
            "select account, delivery_id, method, http_code, attempt from link_event order by id"
        ).fetchall()
    assert stored[0] == (accounts.DEFAULT_NAME, delivery, "AppendDeliveryPart", 408, 1)
    handed_over(halves, delivery, 1000)


@pytest.mark.parametrize(
    ("seconds", "rows", "words"),
    [
        (8.2, 500, "next with 500 rows in 8 s"), (0.0, 2500, "next with 2500 rows in 0 s"), (0.75, None, "next in 0.8 s"),
        (0.97, None, "next in 1 s"), (60.0, None, "next in 60 s"),
    ],
)  # fmt: skip
def test_the_next_step_is_told(seconds: float, rows: int | None, words: str) -> None:
    assert link_journal.in_seconds(seconds, rows) == words


def test_a_part_whose_answer_was_lost_is_not_split(halves: LinkedHalves) -> None:
    delivery = halves.prepared(1000, part_rows=500)
    with FaultProxy(halves.port, every(1, ForwardThenAnswer(408))) as proxy:
        halves.link_to(proxy.url)
        halves.run(handover.hand_over, delivery)
        assert sum(map(is_part, proxy.seen)) == 2
    assert all("the mid had taken it" in line for line in events(halves))
    handed_over(halves, delivery, 1000)


def test_a_proxy_that_takes_only_small_bodies_gets_small_parts(halves: LinkedHalves) -> None:
    delivery = halves.prepared(4000, part_rows=2000)
    with FaultProxy(halves.port) as proxy:
        proxy.fault = lambda seen: Answer(413) if is_part(seen) and seen.body_bytes > 3000 else Pass()
        halves.link_to(proxy.url)
        halves.run(handover.hand_over, delivery)
        assert not [seen for seen in proxy.seen if seen.method == "GET" and "/parts/" in seen.path]
    handed_over(halves, delivery, 4000)
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select max(rows) from upload_part where state = 'acknowledged'") < 2000


def test_a_mid_that_is_down_costs_time_only(halves: LinkedHalves) -> None:
    delivery = halves.prepared(3000, part_rows=100)
    with FaultProxy(halves.port) as proxy:
        halves.link_to(proxy.url)
        proxy.fault = lambda seen: proxy.down() or Pass() if len(proxy.seen) == 10 else Pass()  # type: ignore[func-returns-value]
        reports = [handover.hand_over(halves.context(delivery)) for _ in range(3)]
        assert all(report.more_after_seconds is not None for report in reports)
        assert [report.more_after_seconds or 0 for report in reports][-1] > 0.7
        with halves.marketing.connection() as conn:
            assert scalar(conn, "select state from delivery") == 25
            assert "nobody listens" in scalar(conn, "select last_problem from external_account")
        assert 1 <= len(events(halves)) <= 5
        proxy.up()
        halves.run(handover.hand_over, delivery)
    handed_over(halves, delivery, 3000)
    assert any("no answer (connection refused)" in line for line in events(halves))


def test_a_killed_worker_resumes_from_the_last_acknowledged_part(halves: LinkedHalves) -> None:
    delivery = halves.prepared(2000, part_rows=100)
    beats = [0]

    def die() -> None:
        beats[0] += 1
        if beats[0] == 4:
            raise Cancelled

    with FaultProxy(halves.port) as proxy:
        halves.link_to(proxy.url)
        halves.beat = die
        with pytest.raises(Cancelled):
            halves.run(handover.hand_over, delivery)
        halves.run(handover.hand_over, delivery)
        assert sum(map(is_part, proxy.seen)) <= 20 + 3
    handed_over(halves, delivery, 2000)


def test_a_bad_row_is_refused_alone(halves: LinkedHalves) -> None:
    delivery = halves.prepared(600, part_rows=200)
    bad = wire_rows.encode_row(PartRow(id=250, to="no address at all", d={}))
    with halves.marketing.transaction() as conn:
        body = scalar(conn, "select body from upload_part where part = '2'")
        lines = list(wire_rows.lines(wire_rows.decompress(bytes(body))))
        lines[49] = bad
        raw = b"".join(lines)
        conn.execute(
            "update upload_part set body = %s, content_hash = %s, row_hash = %s where part = '2'",
            (
                wire_rows.compress(raw),
                wire_rows.content_hash(raw),
                wire_rows.sum_hashes(map(wire_rows.row_hash, lines)),
            ),
        )
    halves.run(handover.hand_over, delivery)
    handed_over(halves, delivery, 600)
    with halves.marketing.connection() as conn:
        row = conn.execute("select id, state, reason, reply from broad_log where reason = 201").fetchall()
    assert [(row[0][:3])] == [(250, 0, 201)]
    assert "address" in row[0][3]


def test_parts_lost_by_a_restored_mid_are_sent_again(halves: LinkedHalves) -> None:
    delivery = halves.prepared(1000, part_rows=100)
    with FaultProxy(halves.port) as proxy:
        halves.link_to(proxy.url)

        def lose(seen: Seen) -> Fault:
            if seen.path.endswith("/finalize") and not halves.lines("are sent again"):
                with halves.mid.transaction() as conn:
                    conn.execute("delete from delivery_part where part in ('3', '7')")
                    conn.execute("delete from message where id between 201 and 300 or id between 601 and 700")
            return Pass()

        proxy.fault = lose
        halves.run(handover.hand_over, delivery)
    assert halves.lines("2 parts are sent again")
    handed_over(halves, delivery, 1000)


def test_a_part_that_commits_after_it_was_split_wins_over_its_children(halves: LinkedHalves) -> None:
    """The mid was still busy when it said that it did not hold the part."""
    delivery = halves.prepared(400, part_rows=400)
    with halves.marketing.connection() as conn:
        (part,) = upload.ready_parts(conn, delivery, 1)
        body = bytes(scalar(conn, "select body from upload_part"))
    with FaultProxy(halves.port, every(1, Answer(408))) as proxy:
        halves.link_to(proxy.url)
        handover.hand_over(halves.context(delivery))
        with halves.marketing.connection() as conn:
            assert scalar(conn, "select state from upload_part where part = '1'") == "split"
        with MidClient(f"http://127.0.0.1:{halves.port}", halves.key, halves.clock) as late:
            late.put_part(delivery, "1", body, part.content_hash)
        proxy.fault = lambda _seen: Pass()
        halves.run(handover.hand_over, delivery)
    assert halves.lines("the mid holds the part it was cut from")
    handed_over(halves, delivery, 400)


def test_a_stop_while_parts_are_on_their_way_ends_the_job_quietly(halves: LinkedHalves) -> None:
    delivery = halves.prepared(2000, part_rows=100)
    with FaultProxy(halves.port) as proxy:

        def stop(seen: Seen) -> Fault:
            if seen.path.endswith("/parts/7"):
                with halves.marketing.transaction() as conn:
                    orders.order(conn, delivery, "stop", "alice", halves.clock.now())
                halves.link_to(f"http://127.0.0.1:{halves.port}")  # the proxy is busy with this very part
                halves.run(orders.carry_order, delivery)
            return Pass()

        proxy.fault = stop
        halves.link_to(proxy.url)
        assert "stopped already" in halves.run(handover.hand_over, delivery).note
    with halves.marketing.connection() as conn:
        assert conn.execute("select state, error from delivery").fetchone() == (85, "")


def test_a_wrong_key_ends_the_job_with_its_sentence_and_loses_nothing(halves: LinkedHalves) -> None:
    delivery = halves.prepared(100)
    halves.link_to(f"http://127.0.0.1:{halves.port}", key="wrong." + "x" * 43)
    with pytest.raises(RemoteRefused, match="does not know the key"):
        halves.run(handover.hand_over, delivery)
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select state from delivery") == 25
        assert "does not know the key" in scalar(conn, "select error from delivery")
    halves.link_to(f"http://127.0.0.1:{halves.port}")
    halves.run(handover.hand_over, delivery)
    handed_over(halves, delivery, 100)


def test_a_server_that_is_no_mid_is_named(halves: LinkedHalves) -> None:
    delivery = halves.prepared(100)
    with FaultProxy(1, lambda _seen: Answer(200, (), b"<html>hello</html>", "text/html")) as proxy:
        halves.link_to(proxy.url)
        with pytest.raises(RemoteRefused, match="not a mid-sourcing server"):
            halves.run(handover.hand_over, delivery)


def test_an_account_that_is_switched_off_is_named(halves: LinkedHalves) -> None:
    delivery = halves.prepared(100)
    with halves.marketing.transaction() as conn:
        accounts.set_active(conn, accounts.DEFAULT_NAME, active=False)
    with pytest.raises(MidsourceError, match="switched off"):
        halves.run(handover.hand_over, delivery)


@pytest.mark.parametrize("seed", range(4))
def test_a_link_that_fails_at_random_loses_and_doubles_nothing(halves: LinkedHalves, seed: int) -> None:
    chance = random.Random(seed)
    lock = threading.Lock()
    faults = (
        Answer(408),
        Answer(429),
        Answer(413),
        ForwardThenAnswer(504),
        CutRequest(300),
        CutAnswer(0),
        CutAnswer(150),
        Twice(),
    )

    def fault(_seen: Seen) -> Fault:
        with lock:
            return chance.choice(faults) if chance.random() < 0.3 else Pass()

    delivery = halves.prepared(3000, part_rows=150)
    with FaultProxy(halves.port, fault) as proxy:
        halves.link_to(proxy.url)
        halves.run(handover.hand_over, delivery, slices=400)
    handed_over(halves, delivery, 3000)

"""Pulling the feeds over a real link: forward only, page by page, whatever the mid, the link or an operator does."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from itertools import islice
from random import Random
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from midsource.engine.work import Cancelled, Context, Report
from midsource.marketing import accounts, delivery_log, feed_reader, handover, orders, pages, pointers, sync
from midsource.mid import deliveries as mid_deliveries
from midsource.mid import ledger
from midsource.mid import orders as mid_orders
from midsource.mid.ledger import OutcomeRecord
from midsource.model.errors import Failed, RemoteUnavailable
from midsource.model.message import MessageEvent
from midsource.model.outcome import MAX_REPLY_TEXT
from midsource.policy import runs as close_rows
from midsource.policy.position import parse, show
from midsource.store.database import scalar
from midsource.testing.clock import ManualClock
from midsource.testing.link import LinkedHalves
from midsource.testing.proxy import Answer, CutAnswer, Fault, FaultProxy, Pass, Seen
from midsource.wire import identity
from midsource.wire.schema import DeliveryRow, LogRow

LOGS = f"NmsMidSourcing_LastBroadLog_{accounts.DEFAULT_NAME}"


def logs(context: Context) -> Report:
    return sync.pull(context, "logs")


def counters(context: Context) -> Report:
    return sync.pull(context, "deliveries")


def option(halves: LinkedHalves) -> str:
    with halves.marketing.connection() as conn:
        return str(scalar(conn, "select value from option where name = %s", (LOGS,)))


def write_option(halves: LinkedHalves, value: str) -> None:
    with halves.marketing.connection() as conn:
        conn.execute("update option set value = %s where name = %s", (value, LOGS))


def page_limit(seen: Seen) -> int:
    return int(parse_qs(urlsplit(seen.path).query).get("limit", ["0"])[0])


def sent_state(halves: LinkedHalves, delivery: int) -> int:
    with halves.marketing.connection() as conn:
        return int(scalar(conn, "select count(*) from broad_log where delivery_id = %s and state = 1", (delivery,)))


@pytest.fixture
def delivery(halves: LinkedHalves) -> int:
    """A delivery of 3000 people that the mid has and that nobody has started here."""
    number = halves.prepared(3000, part_rows=1000, excluded=5)
    halves.run(handover.hand_over, number)
    return number


def test_outcomes_and_totals_come_back(halves: LinkedHalves, delivery: int) -> None:
    halves.sent(delivery, range(1, 2001))
    halves.sent(delivery, range(2001, 2101), MessageEvent.REFUSED)
    halves.sent(delivery, range(2101, 2201), MessageEvent.PUT_OFF)
    report = halves.run(logs)
    assert (report.rows_read, report.rows_written, report.rows_refused) == (2200, 2200, 0)
    assert halves.same_on_both_sides(delivery)
    assert halves.totals_agree(delivery)


def test_reading_again_changes_nothing(halves: LinkedHalves, delivery: int) -> None:
    halves.sent(delivery, range(1, 1001))
    halves.run(logs)
    write_option(halves, show(halves.clock.now() - timedelta(hours=1)))
    report = halves.run(logs)
    assert (report.rows_read, report.rows_written) == (1000, 0)
    assert halves.totals_agree(delivery)


def test_several_changes_of_one_message_in_one_page_count_once(halves: LinkedHalves, delivery: int) -> None:
    halves.sent(delivery, range(1, 101), MessageEvent.PUT_OFF)
    halves.sent(delivery, range(1, 101), MessageEvent.LOST)
    halves.sent(delivery, range(1, 101))
    report = halves.run(logs)
    assert (report.rows_read, report.rows_written) == (300, 100)
    assert halves.same_on_both_sides(delivery)
    assert halves.totals_agree(delivery)


def test_an_idle_run_moves_the_option_to_the_time_of_that_look(halves: LinkedHalves) -> None:
    halves.run(logs)
    before = halves.clock.now()
    halves.run(logs)
    assert before <= parse(option(halves)) <= halves.clock.now()


def test_figures_and_state_come_from_the_mid_and_a_finished_delivery_keeps_no_parts(
    halves: LinkedHalves, delivery: int
) -> None:
    with halves.marketing.transaction() as conn:
        orders.order(conn, delivery, "start", "alice", halves.clock.now())
    halves.run(orders.carry_order, delivery)
    halves.sent(delivery, range(1, 3001))
    with halves.mid.transaction() as conn:
        mid_orders.advance(conn, halves.mid_account, delivery, halves.clock.now())
    halves.run(counters)
    with halves.marketing.connection() as conn:
        row = conn.execute("select state, figures, finished_at is not null from delivery").fetchone()
        assert row == (95, {"sent": 3000}, True)
        assert scalar(conn, "select count(*) from upload_part where body is not null") == 0


def test_rows_of_unknown_or_erased_messages_are_counted_and_pass(halves: LinkedHalves, delivery: int) -> None:
    halves.sent(delivery, range(1, 101))
    with halves.marketing.connection() as conn:
        conn.execute("delete from broad_log where id <= 10")
        conn.execute("delete from broad_log_total")
        conn.execute(
            "insert into broad_log_total select delivery_id, domain, state, reason, count(*) from broad_log group by 1, 2, 3, 4"
        )
    report = halves.run(logs)
    assert (report.rows_written, report.rows_refused) == (90, 10)
    assert halves.totals_agree(delivery)


def only_small_pages(most: int) -> Callable[[Seen], Fault]:
    return lambda seen: Answer(504) if page_limit(seen) > most else Pass()


def test_a_page_that_times_out_is_halved_until_it_passes_and_the_size_is_remembered(
    halves: LinkedHalves, delivery: int
) -> None:
    halves.sent(delivery, range(1, 3001))
    with FaultProxy(halves.port, only_small_pages(700)) as proxy:
        halves.link_to(proxy.url)
        halves.run(logs)
        failed = [seen for seen in proxy.seen if page_limit(seen) > 700]
        assert [page_limit(seen) for seen in failed[:3]] == [5000, 2500, 1250]
        assert len(failed) <= 5
        assert halves.lines(
            f"GetMidBroadLogs of {accounts.DEFAULT_NAME}: HTTP 504, attempt 1, next with 2500 rows in 0 s"
        )
        halves.sent(delivery, range(1, 101), MessageEvent.LOST)
        halves.run(logs)
        assert len([seen for seen in proxy.seen if page_limit(seen) > 700]) <= len(failed) + 1
    assert halves.same_on_both_sides(delivery)


def test_deliveries_come_in_smaller_pages_and_a_failed_one_is_halved_at_once(halves: LinkedHalves) -> None:
    """What is asked for counts, not what the window would allow: no size is asked for twice in vain."""
    most = feed_reader.DELIVERY_ROWS
    with FaultProxy(halves.port, only_small_pages(most // 4)) as proxy:
        halves.link_to(proxy.url)
        halves.run(counters)
    assert [page_limit(seen) for seen in proxy.seen[:3]] == [most, most // 2, most // 4]


def test_an_answer_too_large_for_the_link_is_halved_too(halves: LinkedHalves, delivery: int) -> None:
    halves.sent(delivery, range(1, 3001))
    with FaultProxy(halves.port, lambda _seen: CutAnswer(3_000)) as proxy:
        halves.link_to(proxy.url)
        halves.run(logs)
    assert halves.lines("no answer (connection cut)")
    assert halves.same_on_both_sides(delivery)


def test_a_mid_that_is_gone_fails_the_run_after_five_tries_and_the_next_run_goes_on(
    halves: LinkedHalves, delivery: int
) -> None:
    with FaultProxy(halves.port) as proxy:
        halves.link_to(proxy.url)
        proxy.down()
        with pytest.raises(
            RemoteUnavailable, match="1 of 1 external accounts could not be read: defaultEmailMid: nobody listens"
        ):
            halves.run(logs)
        assert len(halves.lines("GetMidBroadLogs")) == sync.TRIES
        halves.sent(delivery, range(1, 11))
        proxy.up()
        halves.run(logs)
    assert sent_state(halves, delivery) == 10


def test_one_account_that_fails_does_not_hold_up_the_other(halves: LinkedHalves, delivery: int) -> None:
    halves.sent(delivery, range(1, 101))
    with halves.marketing.transaction() as conn:
        accounts.add(
            conn, halves.home, url="http://127.0.0.1:1", key=halves.key, name="aaa_broken", now=halves.clock.now()
        )
        accounts.add(
            conn,
            halves.home,
            url=f"http://127.0.0.1:{halves.port}",
            key="x." + "y" * 43,
            name="zzz_key",
            now=halves.clock.now(),
        )
    with pytest.raises(Failed, match="2 of 3 external accounts"):
        halves.run(logs)
    assert sent_state(halves, delivery) == 100


def test_an_account_with_much_to_read_leaves_pages_to_the_others(
    halves: LinkedHalves, delivery: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of a slice were counted over all accounts: one with years to read left none, slice after slice."""
    monkeypatch.setattr(sync, "MAX_PAGES", 6)
    halves.sent(delivery, range(1, 501))
    with halves.marketing.transaction() as conn:
        url = f"http://127.0.0.1:{halves.port}"
        accounts.add(conn, halves.home, url=url, key=halves.key, name="aaa_old", now=halves.clock.now())
        conn.execute("update pointer set page_rows = 1, page_ceiling = 1 where account = 'aaa_old'")
    report = logs(halves.context())
    assert report.more_after_seconds == 0
    assert sent_state(halves, delivery) == 500


@pytest.mark.parametrize(
    "wrong",
    [
        {"revision": 2**40},
        {"id": 2**70},
        {"delivery": 2**70},
        {"attempts": -1},
        {"state": 99},
        {"reason": 40_000},
        {"event_at": 2**62},
    ],
)
def test_a_row_that_no_column_holds_is_refused_and_its_page_passes(
    halves: LinkedHalves, delivery: int, wrong: dict[str, int]
) -> None:
    row = LogRow(
        delivery=delivery, id=1, state=1, reason=0, attempts=1, revision=5, event_at=1_700_000_000_000_000, reply="250", message_id="m"
    )  # fmt: skip
    with halves.marketing.transaction() as conn:
        rows = [row, msgspec.structs.replace(row, **({"id": 2} | wrong))]
        written = pages.take_logs(conn, accounts.DEFAULT_NAME, rows)
    assert (written.read, written.written, written.refused) == (2, 1, 1)
    assert halves.totals_agree(delivery)


def outcome(delivery: int, id_: int, revision: int = 2, state: int = 1) -> LogRow:
    return LogRow(delivery, id_, state, 0, 1, revision, 1_700_000_000_000_000, "250 ok", "*")


def test_a_page_is_taken_alike_whether_its_rows_lie_close_or_apart(
    halves: LinkedHalves, delivery: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs are read as ranges, other rows one by one; old news, unknown and foreign rows are what they are either way."""
    other = halves.prepared(3000, serial=2)
    with halves.marketing.transaction() as conn:
        conn.execute(
            "insert into external_account select 'elsewhere', label, url, key_id, secret from external_account"
        )
        conn.execute("update delivery set account = 'elsewhere' where id = %s", (other,))
    page = [outcome(delivery, n, revision=3, state=61) for n in range(2, 3001, 2)]
    page += [outcome(delivery, n) for n in (*range(1, 3001), *range(3006, 3015))]  # half is old news, nine are unknown
    page += [outcome(other, n) for n in range(1, 1501)] + [outcome(7, 1)]
    seen = []
    for least in (close_rows.MIN_ROWS, 10_000):
        monkeypatch.setattr(close_rows, "MIN_ROWS", least)
        assert bool(close_rows.runs_of(sorted({(row.delivery, row.id) for row in page}))) == (least < 10_000)
        with halves.marketing.connection() as conn, conn.transaction(force_rollback=True):
            first = pages.take_logs(conn, accounts.DEFAULT_NAME, page)
            conn.execute("truncate feed_page")  # what the end of its transaction does
            again = pages.take_logs(conn, accounts.DEFAULT_NAME, page)
            rows = conn.execute("select * from broad_log order by delivery_id, id").fetchall()
            totals = conn.execute("select * from broad_log_total where n > 0 order by 1, 2, 3, 4").fetchall()
        seen.append((first, again, rows, totals))
    assert seen[0] == seen[1]
    assert seen[0][0] == pages.Written(read=len(page), written=3000, refused=10)
    assert seen[0][1] == pages.Written(read=len(page), written=0, refused=10)
    states = {(row[0], row[5]) for row in seen[0][2] if row[1] <= 3000}
    assert states == {(delivery, 1), (delivery, 61), (other, 6)}


def test_a_reply_comes_back_letter_by_letter(halves: LinkedHalves, delivery: int) -> None:
    replies = [
        "550 a\\b\\n",
        "451 tab\there",
        "550 two\nlines\r\n",
        "250 d\u00e9j\u00e0 \u2028 \U0001f4ec",
        "\\.",
        "550 " + "x" * 900,
        "",
    ]
    page = [LogRow(delivery, n, 2, 0, 1, 2, 1, reply, "<a@b>") for n, reply in enumerate(replies, 1)]
    with halves.marketing.transaction() as conn:
        pages.take_logs(conn, accounts.DEFAULT_NAME, page)
        found = conn.execute(
            "select reply from broad_log where delivery_id = %s and id <= 7 order by id", (delivery,)
        ).fetchall()
    assert [reply for (reply,) in found] == [reply[:MAX_REPLY_TEXT] for reply in replies]


def test_both_halves_compute_the_same_message_id(halves: LinkedHalves, delivery: int) -> None:
    """The mid hands "*" on for the ID that it made from the delivery's key; whoever reads the log reads the ID."""
    with halves.marketing.transaction() as conn:
        pages.take_logs(conn, accounts.DEFAULT_NAME, [outcome(delivery, n) for n in (1, 2)])
        key, sender = conn.execute(
            "select message_key, from_address from delivery where id = %s", (delivery,)
        ).fetchone()  # type: ignore[misc]
    with halves.mid.connection() as conn:
        assert mid_deliveries.find(conn, halves.mid_account, delivery).spec.message_key == key
    found = list(islice(delivery_log.entries(halves.marketing, delivery), 3))
    expected = [identity.message_id(bytes.fromhex(key), n, sender) for n in (1, 2)]
    assert [entry.message_id for entry in found] == [*expected, ""]
    assert len({*expected}) == 2
    assert expected[0].endswith("@shop.test>")


@pytest.mark.parametrize("wrong", [{"revision": 2**70}, {"id": 2**70}, {"state": 99}, {"id": 5}])
def test_a_delivery_that_no_column_holds_is_refused_and_its_page_passes(
    halves: LinkedHalves, delivery: int, wrong: dict[str, int]
) -> None:
    row = DeliveryRow(id=delivery, state=55, revision=7, figures={"1": 10})
    with halves.marketing.transaction() as conn:
        rows = [msgspec.structs.replace(row, **wrong), row]
        written = pages.take_deliveries(conn, accounts.DEFAULT_NAME, rows, halves.clock.now())
    assert (written.read, written.written, written.refused) == (2, 1, 1)


def test_a_value_written_by_hand_during_a_page_wins(halves: LinkedHalves, delivery: int) -> None:
    halves.sent(delivery, range(1, 101))
    by_hand = show(halves.clock.now() - timedelta(days=1))
    with FaultProxy(halves.port) as proxy:

        def meddle(seen: Seen) -> Fault:
            if seen.number == 1:
                write_option(halves, by_hand)
            return Pass()

        proxy.fault = meddle
        halves.link_to(proxy.url)
        halves.run(logs)
        assert "since=" in proxy.seen[1].path
    assert halves.lines("was moved while a page was on its way")
    assert halves.same_on_both_sides(delivery)


def test_a_restored_mid_is_read_again_from_its_oldest_result(halves: LinkedHalves, delivery: int) -> None:
    halves.sent(delivery, range(1, 101))
    halves.run(logs)
    with halves.mid.connection() as conn:
        conn.execute("update instance set generation = %s", (uuid.uuid4(),))
    halves.sent(delivery, range(101, 201))
    report = halves.run(logs)
    (told,) = halves.lines("restored or cloned")
    with halves.marketing.connection() as conn, halves.mid.connection() as there:
        made = scalar(conn, "select created_at from external_account")
        generation = scalar(there, "select generation from instance")
        assert scalar(conn, "select generation from external_account") == generation
    assert str(generation) in told
    assert f"what it holds since {show(made - pointers.MARGIN)} is read again" in told
    assert (report.rows_read, report.rows_written) == (200, 100)
    assert halves.same_on_both_sides(delivery)
    assert halves.totals_agree(delivery)


def test_a_killed_worker_loses_no_page(halves: LinkedHalves, delivery: int) -> None:
    halves.sent(delivery, range(1, 3001))
    with halves.marketing.connection() as conn:
        conn.execute("update pointer set page_rows = 200, page_ceiling = 250")
    beats = [0]

    def die() -> None:
        beats[0] += 1
        if beats[0] % 3 == 0:
            raise Cancelled

    halves.beat = die
    for _ in range(30):
        try:
            halves.run(logs)
            break
        except Cancelled:
            continue
    assert halves.same_on_both_sides(delivery)
    assert halves.totals_agree(delivery)


def test_results_come_at_once_while_a_delivery_runs(halves: LinkedHalves, delivery: int) -> None:
    """The call waits at the mid; the slice ends when nothing runs any more, and has the last result."""
    with halves.marketing.transaction() as conn:
        orders.order(conn, delivery, "start", "alice", halves.clock.now())
    halves.run(orders.carry_order, delivery)
    delays: list[float] = []

    def mid_sends() -> None:
        for first in range(1, 3001, 1000):
            threading.Event().wait(0.4)
            halves.sent(delivery, range(first, first + 1000))
            recorded = halves.clock.now()
            while sent_state(halves, delivery) < first + 999:
                threading.Event().wait(0.02)
            delays.append((halves.clock.now() - recorded).total_seconds())
        with halves.mid.transaction() as conn:
            mid_orders.advance(conn, halves.mid_account, delivery, halves.clock.now())
        halves.run(counters)

    mid = threading.Thread(target=mid_sends)
    mid.start()
    report = halves.run(logs)
    mid.join()
    assert report.rows_written == 3000
    assert max(delays) < 3
    assert halves.same_on_both_sides(delivery)


def test_writers_that_commit_out_of_order_lose_no_row(halves: LinkedHalves, delivery: int) -> None:
    """Six writers with delays and rollbacks, a reader beside them: every committed row arrives."""
    with halves.marketing.transaction() as conn:
        conn.execute("update pointer set page_rows = 150, page_ceiling = 150")

    def write(seed: int) -> None:
        """Leave transactions open that commit long after younger ones."""
        chance = Random(seed)
        for first in range(1 + 500 * seed, 501 + 500 * seed, 25):
            now = halves.clock.now()
            records = [OutcomeRecord(delivery, n, MessageEvent.ACCEPTED, now) for n in range(first, first + 25)]
            try:
                with halves.mid.transaction() as conn:
                    ledger.record_outcomes(conn, halves.mid_account, records, now)
                    threading.Event().wait(chance.random() * 0.1)
                    if chance.random() < 0.3:
                        raise Cancelled
            except Cancelled:
                continue

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(6)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        halves.run(logs)
    halves.run(logs)
    assert halves.same_on_both_sides(delivery)
    assert halves.totals_agree(delivery)


def test_a_clock_that_is_far_off_is_said(halves: LinkedHalves, delivery: int) -> None:
    halves.clock = ManualClock(halves.clock.now() - timedelta(minutes=5))
    halves.run(logs)
    assert halves.lines("s ahead of ours (limit 30 s)")


def test_the_last_48_hours_come_before_the_backlog(halves: LinkedHalves, delivery: int) -> None:
    halves.sent(delivery, range(1, 1001))
    with halves.mid.connection() as conn:  # numbered long ago, as a feed of years is
        conn.execute("select nextval('feed_seq')")
        conn.execute("update feed_batch set seq = 1, sequenced_at = '2021-05-01Z' where rows > 0")
    halves.sent(delivery, range(2001, 2101))
    write_option(halves, "2020-01-01T00:00:00Z")
    order: list[str] = []

    def watch() -> None:
        with halves.marketing.connection() as conn:
            row = conn.execute(
                "select count(*) filter (where id > 2000), count(*) filter (where id <= 2000) from broad_log where state = 1"
            ).fetchone()
            assert row is not None
            order.append("recent" if row[0] and not row[1] else "both" if row[0] else "none")

    halves.beat = watch
    halves.run(logs)
    assert "recent" in order
    assert halves.same_on_both_sides(delivery)
    with halves.marketing.connection() as conn:
        assert scalar(conn, "select count(*) from pointer where lane = 'recent'") == 0

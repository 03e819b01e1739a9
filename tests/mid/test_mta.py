"""Stories of sending: real mta processes, the real sandbox, a real PostgreSQL."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from midsource.mid.connections import STOP_SECONDS
from midsource.mid.loops import SETTLE_STOP_SECONDS
from midsource.mid.mta import render_threads
from midsource.mid.records import Start, unframe
from midsource.model.errors import MidsourceError
from midsource.net.resolver import StaticRoute
from midsource.store.database import scalar
from midsource.supervise import children
from midsource.supervise.places import settle
from midsource.supervise.postgres import EmbeddedPostgres
from midsource.testing.field import Field

SENT, FAILED, PENDING, CANCELLED, DEFERRED, UNCERTAIN = 1, 2, 6, 7, 61, 62
RETRY, PAUSED, FINISHED = 62, 75, 95
LABORIOUS = "<p>Dear {{ recipient.name }}</p>" * 1_500
"""Takes the pool some milliseconds each, so that a stop finds it at work."""


@pytest.fixture
def a_field(tmp_path: Path, mid_template: str, make_database: Callable[..., str]) -> Iterator[Field]:
    with Field(tmp_path, make_database(mid_template)) as made:
        yield made


def people(count: int, *domains: str) -> list[str]:
    return [f"person{n}@{domains[n % len(domains)]}" for n in range(1, count + 1)]


def replies(made: Field, delivery: int) -> list[tuple[int, int, int, str]]:
    with made.database.connection() as conn:
        return conn.execute(
            "select state, reason, attempts, reply from message where delivery_id = %s order by id", (delivery,)
        ).fetchall()


def test_everything_is_sent_once_and_the_delivery_finishes(a_field: Field) -> None:
    a_field.sandbox()
    process = a_field.mta()
    delivery = a_field.deliver(people(1_000, "gmail.example", "orange.example", "sapo.example"))
    a_field.wait_finished(delivery)
    assert a_field.ledger(delivery) == {SENT: 1_000}
    truth = a_field.truth(delivery)
    assert set(truth) == set(range(1, 1_001))
    assert set(truth.values()) == {1}
    assert a_field.end(process) == 0
    assert list((a_field.home / "journal" / "mid1").iterdir()) == [], "a settled journal leaves nothing behind"


def test_greylisted_messages_are_deferred_and_then_sent(a_field: Field) -> None:
    a_field.sandbox()
    a_field.mta()
    delivery = a_field.deliver(people(40, "greylist.example", "free.example"), retry_period_seconds=4)
    a_field.wait_until(lambda: a_field.ledger(delivery).get(DEFERRED) == 20)
    a_field.wait_finished(delivery)
    assert a_field.ledger(delivery) == {SENT: 40}
    assert sorted({attempts for _, _, attempts, _ in replies(a_field, delivery)}) == [1, 2]


def test_retries_end(a_field: Field) -> None:
    a_field.sandbox()
    a_field.mta()
    delivery = a_field.deliver(people(3, "greylist.example"), retry_period_seconds=1, retry_count=1)
    a_field.wait_finished(delivery)
    found = replies(a_field, delivery)
    assert {(state, attempts) for state, _, attempts, _ in found} == {(FAILED, 2)}
    assert all(reply.startswith("451 4.7.1") for _, _, _, reply in found), "the last answer stands"


def test_permanent_refusals_fail_with_reply_and_reason(a_field: Field) -> None:
    a_field.sandbox()
    a_field.mta()
    delivery = a_field.deliver(people(20, "nobody.example"))
    a_field.wait_finished(delivery)
    found = replies(a_field, delivery)
    assert {(state, reason, attempts) for state, reason, attempts, _ in found} == {(FAILED, 1, 1)}
    assert all(reply.startswith("550 5.1.1") for *_, reply in found)


def test_a_connection_dropped_after_the_dot_leaves_exactly_that_message_uncertain(a_field: Field) -> None:
    """What was only announced on that connection goes on at once: it was never begun."""
    a_field.sandbox()
    a_field.mta()
    delivery = a_field.deliver(people(200, "drop.example"), retry_period_seconds=1, retry_count=50)
    a_field.wait_finished(delivery)
    uncertain = a_field.ids(delivery, UNCERTAIN)
    assert uncertain
    assert a_field.ids(delivery, SENT) == set(range(1, 201)) - uncertain
    assert uncertain == a_field.unanswered(delivery)
    truth = a_field.truth(delivery)
    assert set(truth) == set(range(1, 201)), "the sink kept them all, so each of the uncertain ones is a fact"
    assert set(truth.values()) == {1}, "on hold, nothing is sent twice"


def test_policy_resend_sends_uncertain_messages_again_and_names_them(a_field: Field) -> None:
    a_field.sandbox()
    a_field.mta()
    addresses = people(60, "drop.example")
    delivery = a_field.deliver(addresses, uncertain_policy="resend", retry_period_seconds=1, retry_count=20)
    a_field.wait_finished(delivery)
    assert a_field.ledger(delivery) == {SENT: 60}
    twice = {id_ for id_, copies in a_field.truth(delivery).items() if copies > 1}
    with a_field.database.connection() as conn:
        named = conn.execute(
            "select distinct id from outcome where delivery_id = %s and new_state = %s", (delivery, UNCERTAIN)
        ).fetchall()
    assert twice
    assert twice == {id_ for (id_,) in named}


def test_a_message_that_cannot_be_rendered_fails_alone_and_blames_nobody(a_field: Field) -> None:
    a_field.sandbox()
    a_field.mta()
    delivery = a_field.deliver(people(10, "gmail.example"), subject="{{ 7 // (recipient.name|length - 8) }}")
    a_field.wait_finished(delivery)
    found = replies(a_field, delivery)
    assert [(state, reason) for state, reason, _, _ in found] == [(FAILED, 200)] * 9 + [(SENT, 0)]
    assert "subject" in found[0][3]


def test_an_expired_delivery_is_cancelled_and_not_sent(a_field: Field) -> None:
    a_field.sandbox()
    delivery = a_field.deliver(people(10, "gmail.example"))
    with a_field.database.connection() as conn:
        conn.execute("update delivery set valid_until = now() - interval '1 s'")
    a_field.mta()
    a_field.wait_finished(delivery)
    assert a_field.ledger(delivery) == {CANCELLED: 10}
    assert not a_field.truth(delivery)


@pytest.mark.slow
def test_a_stop_in_the_middle_of_sending_leaves_nothing_leased_and_nothing_uncertain(a_field: Field) -> None:
    a_field.sandbox()
    delivery = a_field.deliver(people(6_000, *[f"d{n}.example" for n in range(10)]), html=LABORIOUS)
    left = 6_000
    stops = 0
    while left > 2_000:
        process = a_field.mta()
        left -= 500
        a_field.wait_until(lambda: len(a_field.ids(delivery, PENDING)) < left)  # noqa: B023 - asked within this turn
        assert a_field.end(process) == 0
        assert leased(a_field) == 0, "given back, the batches in the rendering pool too"
        assert list((a_field.home / "journal" / "mid1").iterdir()) == []
        left = len(a_field.ids(delivery, PENDING))
        stops += 1
    assert stops >= 3
    a_field.mta()
    a_field.wait_finished(delivery)
    assert a_field.ledger(delivery) == {SENT: 6_000}
    assert set(a_field.truth(delivery).values()) == {1}


def test_a_stop_at_the_moment_the_provider_goes_down_makes_no_more_uncertain_than_connections(a_field: Field) -> None:
    """As when a machine shuts down, or the supervisor of a demo is killed: connections end at once, batches are full."""
    sink = a_field.sandbox()
    process = a_field.mta()
    delivery = a_field.deliver(people(6_000, *[f"d{n}.example" for n in range(10)]), html=LABORIOUS)
    a_field.wait_until(lambda: len(a_field.ids(delivery, PENDING)) < 5_000)
    process.send_signal(signal.SIGTERM)
    a_field.end(sink, signal.SIGKILL)
    assert process.wait(40) == 0
    assert leased(a_field) == 0
    assert len(a_field.ids(delivery, UNCERTAIN)) <= 40, "ten destinations with four connections, and one body on each"


def leased(made: Field) -> int:
    """Return how many batches somebody holds."""
    with made.database.connection() as conn:
        return int(scalar(conn, "select count(*) from dispatch_batch where owner is not null"))


@pytest.mark.slow
def test_kill_9_loses_nothing_and_doubles_only_what_it_names(a_field: Field) -> None:
    a_field.sandbox()
    delivery = a_field.deliver(people(6_000, *[f"d{n}.example" for n in range(10)]))
    left = 6_000
    kills = 0
    while left > 1_000:
        process = a_field.mta()
        left -= 1_000
        a_field.wait_until(lambda: len(a_field.ids(delivery, PENDING)) < left)  # noqa: B023 - asked within this turn
        a_field.end(process, signal.SIGKILL)
        kills += 1
        left = len(a_field.ids(delivery, PENDING))
    a_field.mta()
    a_field.wait_finished(delivery)
    assert kills >= 3
    ledger, truth = a_field.ledger(delivery), a_field.truth(delivery)
    uncertain = a_field.ids(delivery, UNCERTAIN)
    assert set(ledger) <= {SENT, UNCERTAIN}
    assert len(uncertain) <= 40 * kills, "ten destinations with four connections, and one body on each"
    assert set(truth.values()) == {1}, "uncertain ones are on hold, so nobody got two"
    assert a_field.ids(delivery, SENT) <= set(truth)
    assert set(range(1, 6_001)) - set(truth) <= uncertain, "who got nothing is named"


@pytest.mark.slow
def test_a_process_stalled_past_its_lease_sends_no_second_copy(a_field: Field) -> None:
    """Leases of 8 s, so that the story takes seconds: the rules are the same."""
    a_field.lease_seconds = 8.0
    a_field.sandbox()
    delivery = a_field.deliver(people(200, "slow.example") + people(2_800, *[f"d{n}.example" for n in range(3)]))
    stalled = a_field.mta("mta@mid1")
    a_field.wait_until(lambda: a_field.ledger(delivery).get(SENT, 0) > 300)
    stalled.send_signal(signal.SIGSTOP)
    a_field.mta("mta@mid1.2")
    a_field.wait_until(lambda: '"event": "recovered"' in a_field.log("mta@mid1.2"), 60)
    stalled.send_signal(signal.SIGCONT)
    a_field.wait_finished(delivery, 120)
    a_field.wait_until(lambda: "lease.lost" in a_field.log("mta@mid1"))
    assert stalled.poll() is None
    truth = a_field.truth(delivery)
    assert set(truth.values()) == {1}
    assert a_field.ids(delivery, SENT) <= set(truth)
    assert set(range(1, 3_001)) - set(truth) <= a_field.ids(delivery, UNCERTAIN)
    assert len(a_field.ids(delivery, UNCERTAIN)) <= 16


def test_pause_stops_soon_and_resume_goes_on(a_field: Field) -> None:
    a_field.sandbox()
    a_field.mta()
    delivery = a_field.deliver(people(400, "slow.example"))
    a_field.wait_until(lambda: a_field.ledger(delivery).get(SENT, 0) > 20)
    a_field.order(delivery, "pause")
    a_field.wait_until(lambda: a_field.state(delivery) == PAUSED, 15)
    held = a_field.ledger(delivery)
    assert held[PENDING] > 200
    with a_field.database.connection() as conn:
        assert conn.execute("select count(*) from dispatch_batch where owner is not null").fetchone() == (0,)
    with a_field.database.connection() as conn:  # three quarters less, so that the rest takes seconds
        conn.execute(
            "update message set domain = 'gmail.example', email = 'p' || id || '@gmail.example' where state = 6"
        )
        conn.execute("update dispatch_batch set destination = 'gmail.example'")
    assert a_field.ledger(delivery) == held
    a_field.order(delivery, "resume")
    a_field.wait_finished(delivery)
    assert a_field.ledger(delivery) == {SENT: 400}
    assert set(a_field.truth(delivery).values()) == {1}


def test_stop_cancels_what_was_not_begun(a_field: Field) -> None:
    a_field.sandbox()
    a_field.mta()
    delivery = a_field.deliver(people(400, "slow.example"))
    a_field.wait_until(lambda: a_field.ledger(delivery).get(SENT, 0) > 20)
    a_field.order(delivery, "stop")
    a_field.wait_until(lambda: set(a_field.ledger(delivery)) == {SENT, CANCELLED}, 15)
    assert set(a_field.truth(delivery)) == a_field.ids(delivery, SENT)


def test_sigterm_gives_everything_back(a_field: Field) -> None:
    a_field.sandbox()
    process = a_field.mta()
    delivery = a_field.deliver(people(400, "slow.example"))
    a_field.wait_until(lambda: a_field.ledger(delivery).get(SENT, 0) > 20)
    assert a_field.end(process) == 0
    assert set(a_field.ledger(delivery)) == {SENT, PENDING}, "what was under way was waited for"
    assert set(a_field.truth(delivery)) == a_field.ids(delivery, SENT)
    with a_field.database.connection() as conn:
        assert conn.execute("select count(*) from dispatch_batch where owner is not null").fetchone() == (0,)
        assert conn.execute("select count(*) from process").fetchone() == (0,)
    assert list((a_field.home / "journal" / "mid1").iterdir()) == []


class Mute(socketserver.StreamRequestHandler):
    """A server that takes a body and never says so."""

    def handle(self) -> None:
        self.wfile.write(b"220 mute\r\n")
        while line := self.rfile.readline():
            if line[:4].upper() == b"DATA":
                self.wfile.write(b"354 go\r\n")
                while self.rfile.readline():
                    pass
            else:
                self.wfile.write(b"250 ok\r\n")


def test_sigterm_waits_for_replies_no_longer_than_it_says(a_field: Field) -> None:
    """A body that has no reply by then is uncertain, named so at once by the process itself; nothing else is."""
    a_field.sandbox()
    a_field.stop_seconds = 1.0
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mute) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        a_field.routes.append(StaticRoute("mute.example", "127.0.0.1", server.server_address[1]))
        process = a_field.mta()
        delivery = a_field.deliver(people(50, "mute.example"))
        a_field.wait_until(lambda: _starts(a_field) == 4)
        began = time.monotonic()
        assert a_field.end(process) == 0
        assert 1.0 <= time.monotonic() - began < 1.0 + SETTLE_STOP_SECONDS + 3.0  # and some for a busy machine
        server.shutdown()
    assert a_field.ledger(delivery) == {UNCERTAIN: 4, PENDING: 46}, "one a connection"
    assert list((a_field.home / "journal" / "mid1").iterdir()) == []


def test_an_mta_ends_before_the_supervisor_would_kill_it() -> None:
    assert STOP_SECONDS + SETTLE_STOP_SECONDS < children.STOP_SECONDS - 1


def _starts(made: Field) -> int:
    """Return how many bodies the journals of living processes say to have begun."""
    files = made.home.glob("journal/mid1/*/*.log")
    return sum(isinstance(record, Start) for path in files for record in unframe(path.read_bytes()).records)


def test_a_destination_that_is_down_holds_up_no_other(a_field: Field) -> None:
    a_field.sandbox()
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    a_field.routes.append(StaticRoute("down.example", "127.0.0.1", closed))
    a_field.mta()
    delivery = a_field.deliver(people(600, "down.example", "gmail.example", "orange.example"))
    a_field.wait_until(lambda: a_field.ledger(delivery) == {SENT: 400, DEFERRED: 200}, 20)
    found = [row for row in replies(a_field, delivery) if row[0] == DEFERRED]
    assert {(reason, attempts) for _, reason, attempts, _ in found} == {(3, 1)}
    assert {reply for *_, reply in found} == {f"no connection to down.example[127.0.0.1]:{closed}: Connection refused"}
    a_field.wait_until(lambda: a_field.state(delivery) == RETRY)


@pytest.mark.slow
def test_a_postgresql_killed_in_the_middle_loses_nothing(tmp_path: Path, open_folder: Path) -> None:
    """A server of its own: its postmaster is killed with -9 three times, and recovers."""
    place = open_folder / "crashing"
    place.mkdir(mode=0o711)
    (place / "home").mkdir(mode=0o711)
    server = EmbeddedPostgres(place / "home", system_folder=place / "system")

    def postmaster() -> int:
        pid = settle(server.files, place / "system").data / "postmaster.pid"
        return int(pid.read_text().split()[0]) if pid.exists() else 0

    with server.use() as use:
        use.ensure_database("mid1")
        with Field(tmp_path, use.dsn("mid1")) as made:
            made.sandbox()
            process = made.mta()
            delivery = made.deliver(people(4_000, *[f"d{n}.example" for n in range(4)]))
            for reached in (500, 1_500, 2_500):
                made.wait_until(partial(_has_sent, made, delivery, reached))
                killed = postmaster()
                os.kill(killed, signal.SIGKILL)
                made.wait_until(lambda: postmaster() not in (0, killed))  # noqa: B023 - asked within this turn
            made.wait_until(partial(_has_sent, made, delivery, 4_000))
            made.wait_until(partial(_is_finished, made, delivery))
            assert process.poll() is None, "the process itself went on"
            assert set(made.truth(delivery).values()) == {1}
            assert made.ledger(delivery) == {SENT: 4_000}
            with made.database.connection() as conn:
                assert conn.execute("select count(*) from outcome").fetchone() == (4_000,), "each outcome once"
    server.stop_now()


def _has_sent(made: Field, delivery: int, count: int) -> bool:
    """Tell whether so many are sent; no while PostgreSQL is away."""
    try:
        return made.ledger(delivery).get(SENT, 0) >= count
    except MidsourceError:
        return False


def _is_finished(made: Field, delivery: int) -> bool:
    try:
        return made.state(delivery) == FINISHED
    except MidsourceError:
        return False


@pytest.mark.parametrize(("processes", "cores", "threads"), [(1, 1, 1), (1, 2, 2), (1, 8, 2), (2, 2, 1), (3, 2, 1)])
def test_processes_that_fill_the_cores_render_in_one_thread_each(processes: int, cores: int, threads: int) -> None:
    assert render_threads(processes, cores) == threads

"""What the sink keeps: numbers, counts, bounds, and what a restart finds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from midsource.sandbox.arrival import Arrival, Recipient, read_facts
from midsource.sandbox.files import Appender, Bounds
from midsource.sandbox.inbox import Inbox, Query
from midsource.sandbox.message import read_message
from midsource.sandbox.personalities import ACCEPT
from midsource.testing.clock import ManualClock

SMALL = Bounds(index_segment_lines=10, index_lines=35, body_segment_messages=4, body_messages=12)


def _open(folder: Path, bounds: Bounds | None = None) -> Inbox:
    return Inbox(folder, ManualClock(), bounds)


def _arrival(n: int, *rcpts: str, answered: bool = True, size: int = 0) -> Arrival:
    body = b"Message-ID: <m%d@x>\r\nX-Midsource-Id: %d.%d\r\nSubject: =?utf-8?q?No_%d_=C3=A9?=\r\n\r\nhi%s\r\n" % (
        n, n % 3, n, n, b"x" * size,
    )  # fmt: skip
    recipients = tuple(Recipient(rcpt, rcpt.rpartition("@")[2], ACCEPT) for rcpt in rcpts or (f"p{n}@orange.example",))
    return Arrival("news@brand.example", recipients, body, read_facts(body), encrypted=False, answered=answered)


def _numbers(inbox: Inbox, query: Query) -> list[int]:
    return [line.n for line in inbox.page(query).lines]


def test_messages_are_numbered_counted_and_found_again(tmp_path: Path) -> None:
    inbox = _open(tmp_path)
    assert inbox.keep([_arrival(1), _arrival(2, "a@gmail.example", "b@sapo.example"), _arrival(3)]) == [1, 2, 4]
    assert inbox.keep([_arrival(1, answered=False)]) == [5]
    total = inbox.tally.total
    assert (total.received, total.distinct, total.unanswered) == (5, 4, 1)
    line = inbox.line(3)
    assert line is not None
    assert (line.rcpt, line.subject, line.delivery, line.duplicate) == ("b@sapo.example", "No 2 é", "2", False)
    assert inbox.raw(line) == _arrival(2).body
    assert inbox.line(0) is inbox.line(6) is inbox.line(-1) is None


def test_pages_go_back_without_a_gap(tmp_path: Path) -> None:
    inbox = _open(tmp_path, SMALL)
    inbox.keep([_arrival(n) for n in range(1, 31)])
    seen: list[int] = []
    after: int | None = None
    while True:
        page = inbox.page(Query(after=after, limit=7))
        seen += [line.n for line in page.lines]
        if (after := page.after) is None:
            break
    assert seen == list(range(30, 0, -1))


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        (Query(domain="GMAIL.example"), [2]),
        (Query(delivery="0"), [6, 3]),
        (Query(delivery="0", text="m6@x"), [6]),
        (Query(text="NO 5 É"), [5]),
        (Query(text="p4@orange"), [4]),
        (Query(text="answered"), []),
        (Query(text='"'), []),
        (Query(delivery='0","domain":"orange.example'), []),
        (Query(after=3), [2, 1]),
        (Query(after=-5), []),
        (Query(limit=0), [6]),
    ],
)
def test_search(tmp_path: Path, query: Query, numbers: list[int]) -> None:
    inbox = _open(tmp_path)
    inbox.keep([_arrival(1), _arrival(2, "a@gmail.example"), *(_arrival(n) for n in range(3, 7))])
    assert _numbers(inbox, query) == numbers


def test_a_restart_finds_everything(tmp_path: Path) -> None:
    before = _open(tmp_path, SMALL)
    for n in range(25):
        before.keep([_arrival(n), _arrival(n, answered=False)])
    after = _open(tmp_path, SMALL)
    assert after.tally.total == before.tally.total
    assert after.tally.by_delivery == before.tally.by_delivery
    assert list(after.truth("1")) == list(before.truth("1"))
    assert after.holds("m24@x", "P24@orange.example")
    assert after.keep([_arrival(24)]) == [51]
    line = after.line(51)
    assert line is not None
    assert line.duplicate
    assert after.raw(line) == _arrival(24).body


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    inbox = _open(tmp_path)
    inbox.keep([_arrival(1), _arrival(2)])
    path = next(tmp_path.glob("index-*"))
    os.truncate(path, path.stat().st_size - 20)
    again = _open(tmp_path)
    assert again.tally.total.received == 1
    assert again.keep([_arrival(3)]) == [2]
    assert _numbers(_open(tmp_path), Query()) == [2, 1]


def test_index_and_bodies_are_bounded_and_counts_follow(tmp_path: Path) -> None:
    inbox = _open(tmp_path, SMALL)
    for n in range(100):
        inbox.keep([_arrival(n)])
    held = inbox.tally.total
    assert 25 < held.received == held.distinct <= SMALL.index_lines + SMALL.index_segment_lines
    assert held.received == len(_numbers(inbox, Query(limit=500))) == sum(p.count(b"\n") for p in inbox.truth())
    kept = [line.n for line in inbox.page(Query(limit=500)).lines if inbox.raw(line) is not None]
    assert kept == list(range(100, 100 - len(kept), -1))
    assert SMALL.body_messages <= len(kept) <= SMALL.body_messages + SMALL.body_segment_messages
    assert not inbox.holds("m0@x", "p0@orange.example")
    again = _open(tmp_path, SMALL)
    assert again.tally.total == held
    assert [line.n for line in again.page(Query(limit=500)).lines if again.raw(line) is not None] == kept


def test_bodies_are_bounded_in_bytes(tmp_path: Path) -> None:
    inbox = _open(tmp_path, Bounds(body_segment_bytes=10_000, body_bytes=50_000))
    for n in range(100):
        inbox.keep([_arrival(n, size=2_000)])
    assert 30_000 < sum(path.stat().st_size for path in tmp_path.glob("bodies-*")) <= 60_000


def test_many_restarts_leave_no_heap_of_files(tmp_path: Path) -> None:
    for n in range(60):
        inbox = _open(tmp_path, SMALL)
        inbox.keep([_arrival(n)])
        inbox.close()
    assert len(list(tmp_path.glob("bodies-*"))) <= SMALL.body_messages // SMALL.body_segment_messages + 1
    assert len(list(tmp_path.glob("index-*"))) <= SMALL.index_lines // SMALL.index_segment_lines + 1
    kept = [line for line in inbox.page(Query(limit=500)).lines if inbox.raw(line) is not None]
    assert [inbox.raw(line) for line in kept] == [_arrival(line.n - 1).body for line in kept]
    assert len(kept) >= SMALL.body_messages


def test_clear_forgets_all_and_numbers_go_on(tmp_path: Path) -> None:
    inbox = _open(tmp_path)
    inbox.keep([_arrival(1), _arrival(2)])
    inbox.clear()
    assert inbox.tally.total.received == 0
    assert (_numbers(inbox, Query()), list(inbox.truth()), inbox.line(1)) == ([], [], None)
    assert not list(tmp_path.glob("bodies-*"))
    again = _open(tmp_path)
    assert again.keep([_arrival(1)]) == [3]
    line = again.line(3)
    assert line is not None
    assert not line.duplicate


def test_a_write_that_fails_half_way_is_taken_back(tmp_path: Path) -> None:
    full = Appender(Path("/dev/full"))
    with pytest.raises(OSError, match="No space"):
        full.append(b"x")
    assert full.size == 0
    full.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n",
        b"no header at all",
        b"Content-Type: text/html; charset=no-such\r\n\r\n<p>x",
        b"Content-Type: multipart/mixed; boundary=\r\n\r\n--\r\n",
        b"From: =?utf-8?b?!!!?= <@>\r\nTo: :;<\r\nDate: never\r\nMessage-ID: <\r\n\r\nx",
        b"Content-Transfer-Encoding: base64\r\n\r\n!!!!",
        b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx",
        bytes(range(256)),
    ],
)
def test_reading_a_message_never_fails(raw: bytes) -> None:
    assert isinstance(read_message(raw).text, str)


def test_reading_a_message_shows_its_parts() -> None:
    raw = (
        b"Subject: =?utf-8?q?L=27=C3=A9t=C3=A9?=\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"caf=C3=A9\r\n--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<b>caf\xc3\xa9</b>\r\n--b--\r\n"
    )
    message = read_message(raw)
    assert ("Subject", "L'été") in message.headers
    assert (message.text.strip(), message.html.strip()) == ("café", "<b>café</b>")
    assert message.problems == message.attachments == ()

from __future__ import annotations

import fcntl
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from midsource.mid import replay as replay_
from midsource.mid.journal import BATCH_OUTCOMES, Journal, JournalFull
from midsource.mid.records import Ending, Outcome, Start, frame, unframe

BOOT = "a boot"
AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def start(number: int, token: int = 1) -> Start:
    return Start(1, 202603 << 32 | 1, number, 7, token)


def outcome(number: int, token: int = 1, reply: str = "250 2.0.0 Ok") -> Outcome:
    return Outcome(
        1,
        202603 << 32 | 1,
        number,
        7,
        token,
        "accepted",
        0,
        reply,
        "body",
        AT,
        f"<{number}@x>",
        True,
        None,
        "a.example",
    )


def test_started_without_outcome_is_uncertain(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "one", BOOT)
    for number in range(1, 6):
        journal.started(start(number))
    journal.outcome(outcome(2))
    journal.withdrawn(start(3).key)
    journal.flush()
    replay = replay_.read(tmp_path / "one")
    assert replay.boot_id == BOOT
    assert [found.id for found in replay.uncertain] == [1, 4, 5]
    assert [[o.id for o in batch.outcomes] for batch in replay.unapplied] == [[2]]
    assert replay.unapplied[0].number == replay_.LOOSE


def test_a_second_try_under_another_lease_is_its_own_start(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "one", BOOT)
    journal.started(start(1, token=1))
    journal.outcome(outcome(1, token=1))
    journal.started(start(1, token=2))
    assert [found.token for found in replay_.read(tmp_path / "one").uncertain] == [2]


def test_sealed_batches_keep_their_numbers_until_they_are_applied(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "one", BOOT)
    for number in (1, 2):
        journal.outcome(outcome(number))
    first = journal.seal()
    assert first is not None
    journal.outcome(outcome(3))
    assert journal.seal() is first, "until it is applied"
    journal.applied(first)
    second = journal.seal()
    assert second is not None
    journal.flush()
    replay = replay_.read(tmp_path / "one")
    assert replay.unapplied == (second,)
    assert second.outcomes[0].event_at == AT


def test_a_torn_tail_is_cut_off_and_counted(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "one", BOOT)
    journal.started(start(1))
    journal.started(start(2))
    path = tmp_path / "one" / "000001.log"
    whole = path.read_bytes()
    for cut in range(len(whole) // 2 + 1, len(whole)):
        path.write_bytes(whole[:cut])
        replay = replay_.read(tmp_path / "one")
        assert [found.id for found in replay.uncertain] == [1]
        assert (replay.torn_bytes, replay.damage) == (cut - len(whole) // 2, Ending.WHOLE)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    replay = replay_.read(tmp_path / "one")
    assert ([found.id for found in replay.uncertain], replay.damage) == ([1], Ending.ALTERED)


@pytest.mark.parametrize(
    ("tail", "ending"),
    [
        (b"", Ending.WHOLE),
        (bytes(4), Ending.CUT),
        (bytes(8), Ending.ALTERED),
        (bytes(4096), Ending.ALTERED),
        (struct.pack("<II", 1 << 20, 0), Ending.ALTERED),
        (struct.pack("<II", 100, 0) + b"x", Ending.CUT),
        (struct.pack("<II", 3, zlib.crc32(b"abc")) + b"abc", Ending.FOREIGN),
        (struct.pack("<II", 4, zlib.crc32(b"\x91\xa1\xffz")) + b"\x91\xa1\xffz", Ending.FOREIGN),
    ],
    ids=["none", "short", "head of zeros", "zeros", "huge", "cut", "unknown", "no text"],
)
def test_whatever_stands_behind_the_last_record_ends_the_reading(tail: bytes, ending: Ending) -> None:
    found = unframe(frame(start(1)) + tail)
    assert (found.records, found.torn_bytes, found.ending) == ([start(1)], len(tail), ending)


def test_no_bytes_are_too_strange_to_be_read() -> None:
    chance = random.Random(7)
    whole = frame(outcome(1))[8:]
    for _ in range(2_000):
        payload = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            payload[chance.randrange(len(payload))] = chance.randrange(256)
        unframe(struct.pack("<II", len(payload), zlib.crc32(payload)) + payload)


def test_a_file_that_ends_early_before_the_last_one_is_damage(tmp_path: Path) -> None:
    """A killed process leaves no beginning of a record but at its very end."""
    (tmp_path / "999999.log").write_bytes(frame(start(1))[:-1])
    (tmp_path / "1000000.log").write_bytes(frame(start(2)))
    replay = replay_.read(tmp_path)
    assert ([found.id for found in replay.uncertain], replay.damage) == ([2], Ending.CUT)
    (tmp_path / "1000000.log").unlink()
    assert replay_.read(tmp_path).damage is Ending.WHOLE


def test_segments_go_in_order_once_applied_and_without_open_starts(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "one", BOOT, segment_bytes=2_000)
    journal.started(start(999))
    for number in range(100):
        journal.started(start(number))
        journal.outcome(outcome(number))
        sealed = journal.seal()
        assert sealed is not None
        journal.applied(sealed)
    assert len(list((tmp_path / "one").glob("*.log"))) > 3, "the open start holds every later segment"
    journal.outcome(outcome(999))
    sealed = journal.seal()
    assert sealed is not None
    journal.flush()
    journal.sync()
    journal.applied(sealed)
    assert len(list((tmp_path / "one").glob("*.log"))) <= 2
    journal.flush()
    replay = replay_.read(tmp_path / "one")
    assert (replay.uncertain, replay.unapplied) == ((), ())


def test_a_segment_stays_until_what_closed_its_starts_is_durable(tmp_path: Path) -> None:
    """What is read at any line here is what a kill at that line leaves."""
    journal = Journal(tmp_path, "one", BOOT, segment_bytes=1)
    journal.started(start(1), start(2))
    journal.outcome(outcome(1))
    sealed = journal.seal()
    assert sealed is not None
    journal.outcome(outcome(2))  # closes the last start of the first segment, in memory
    journal.applied(sealed)
    assert [found.id for found in replay_.read(tmp_path / "one").uncertain] == [2]
    journal.flush()
    assert [o.id for batch in replay_.read(tmp_path / "one").unapplied for o in batch.outcomes] == [2]
    assert journal.has_room
    assert names(tmp_path) == ["000001.log", "000002.log"], "a machine without power forgets what is not synced"
    journal.sync()
    assert journal.has_room
    assert names(tmp_path) == ["000002.log"], "without another batch: at the bound there would be none"


def test_an_outcome_flushed_after_a_sync_is_not_covered_by_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "one", BOOT, segment_bytes=1)
    journal.started(start(1))
    journal.outcome(outcome(2))
    sealed = journal.seal()
    assert sealed is not None
    journal.sync()
    journal.applied(sealed)
    journal.withdrawn(start(1).key)
    assert journal.is_dirty
    journal.flush()
    assert journal.has_room
    assert journal.is_dirty
    assert names(tmp_path) == ["000001.log", "000002.log"]


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "one").glob("*.log"))


def test_a_batch_ends_by_itself_when_it_is_large(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "one", BOOT)
    for number in range(BATCH_OUTCOMES + 1):
        journal.outcome(outcome(number))
    first = journal.seal()
    assert first is not None
    assert replay_.read(tmp_path / "one").unapplied == (first,)
    journal.applied(first)
    second = journal.seal()
    assert second is not None
    assert (len(first.outcomes), len(second.outcomes)) == (BATCH_OUTCOMES, 1)


def test_the_folder_is_held_while_its_process_lives(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "one", BOOT)
    assert replay_.folders(tmp_path) == [tmp_path / "one"]
    assert replay_.hold(tmp_path / "one") is None
    assert replay_.held_by_the_living(tmp_path / "one")
    journal.started(start(1))
    journal.close(settled=True)
    fd = replay_.hold(tmp_path / "one")
    assert fd is not None, "an open start keeps the folder for recovery"
    os.close(fd)


def test_a_folder_removed_between_opening_and_holding_it_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    lock = fcntl.flock

    def after_it_went(fd: int, how: int) -> None:
        (tmp_path / "one").rmdir()
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", after_it_went)
    assert replay_.hold(tmp_path / "one") is None


def test_a_settled_journal_leaves_nothing_behind(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "one", BOOT)
    journal.started(start(1))
    journal.outcome(outcome(1))
    sealed = journal.seal()
    assert sealed is not None
    journal.applied(sealed)
    journal.close(settled=True)
    assert replay_.folders(tmp_path) == []


def test_a_full_disk_refuses_the_start_and_loses_no_outcome(tmp_path: Path) -> None:
    """A limit on the size of files is a real write error in the middle of a record."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = Journal(tmp_path, "one", BOOT)
    journal.started(start(1))
    journal.flush()
    size = (tmp_path / "one" / "000001.log").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        with pytest.raises(JournalFull, match="cannot be written"):
            journal.started(start(2))
        journal.outcome(outcome(1))
        with pytest.raises(JournalFull):
            journal.flush()
        full = journal.has_room
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (full, journal.has_room) == (False, True), "it goes on by itself when there is space again"
    replay = replay_.read(tmp_path / "one")
    assert replay.uncertain == ()
    assert [o.id for o in replay.unapplied[0].outcomes] == [1]


def test_kill_9_keeps_every_start(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from midsource.mid.journal import Journal; from midsource.mid.records import Start\n"
        "journal = Journal(Path(sys.argv[1]), 'dead', 'a boot')\n"
        "for n in range(1, 501): journal.started(Start(1, 2, n, 3, 4))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not replay_.held_by_the_living(tmp_path / "dead")
    assert len(replay_.read(tmp_path / "dead").uncertain) == 500


def limited(which: int, soft: int, act: Callable[[], None]) -> None:
    """Run ``act`` with the system refusing what is above ``soft``: a real error from a real write."""
    before, hard = resource.getrlimit(which)
    resource.setrlimit(which, (soft, hard))
    try:
        act()
    finally:
        resource.setrlimit(which, (before, hard))


def test_a_disk_that_was_full_when_nothing_waited_is_tried_again(tmp_path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = Journal(tmp_path, "one", BOOT)

    def refuse() -> None:
        with pytest.raises(JournalFull):
            journal.started(start(1))
        assert not journal.has_room
        assert not journal.has_begun(start(1).key)

    limited(resource.RLIMIT_FSIZE, 10, refuse)
    assert journal.has_room
    journal.started(start(2))
    assert [found.id for found in replay_.read(tmp_path / "one").uncertain] == [2]


def test_without_room_for_another_file_the_present_one_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "one", BOOT, segment_bytes=1)

    def settle() -> None:
        for id_ in (1, 2):
            journal.started(start(id_))
            journal.outcome(outcome(id_))
            sealed = journal.seal()
            assert sealed is not None
            journal.applied(sealed)

    limited(resource.RLIMIT_NOFILE, 3, settle)
    settle()
    journal.flush()
    assert replay_.read(tmp_path / "one").uncertain == ()
    journal.close(settled=True)
    assert replay_.folders(tmp_path) == []

"""Full disks: sending stops and says so in one sentence, nothing is lost, and everything goes on when there is room."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.progress import Eye, Progress

from midsource.bench.lab.accounting import account_everybody
from midsource.bench.machine import family
from midsource.cli.ground import Home
from midsource.model.message import MessageState
from midsource.supervise.control import ControlClient
from midsource.supervise.places import HomeFiles
from midsource.supervise.state import State
from midsource.testing.field import Field
from midsource.testing.full_disk import FullDisk, disk, ways

pytestmark = pytest.mark.slow
SENT, UNCERTAIN = 1, 62
PEOPLE = 6_000
ADDRESSES = [f"p{n}@d{n % 3}.example" for n in range(PEOPLE)]
CONNECTIONS = 4 * 3
"""Four to each of the three destinations."""
QUIET_SECONDS = 2.0
FULL_SECONDS = 4.0
JOURNAL_MEGABYTES, HOME_MEGABYTES = 3, 700


@pytest.fixture(params=ways())
def journal_disk(request: pytest.FixtureRequest, field: Field) -> Iterator[FullDisk]:
    """The disk that the journals of the mid's mta processes are on, and nothing else."""
    folder = field.home / "journal"
    folder.mkdir()
    with disk(request.param, folder, JOURNAL_MEGABYTES, lambda: _senders(field)) as made:
        yield made


def test_an_mta_whose_journal_disk_is_full_stops_says_so_and_goes_on(field: Field, journal_disk: FullDisk) -> None:
    field.sandbox()
    delivery = field.deliver(ADDRESSES)
    process = field.mta()
    field.wait_until(lambda: field.ledger(delivery).get(SENT, 0) > 500)
    journal_disk.fill()
    field.wait_until(lambda: _says_full(field, "mta@mid1"))
    stopped_at = _when_quiet(field, delivery)
    assert stopped_at < PEOPLE, "it took no more work"
    assert process.poll() is None, "and it lives"
    assert "Traceback" not in field.log()
    journal_disk.free()
    field.wait_finished(delivery)
    assert field.ledger(delivery) == {SENT: PEOPLE}, "nobody is in doubt"
    truth = field.truth(delivery)
    assert len(truth) == PEOPLE
    assert set(truth.values()) == {1}


def test_killed_and_started_again_while_its_disk_is_full_it_names_who_is_in_doubt(
    field: Field, journal_disk: FullDisk
) -> None:
    field.sandbox()
    delivery = field.deliver(ADDRESSES)
    process = field.mta()
    field.wait_until(lambda: field.ledger(delivery).get(SENT, 0) > 500)
    journal_disk.fill()
    field.wait_until(lambda: _says_full(field, "mta@mid1"))
    field.end(process, signal.SIGKILL)
    field.mta("mta@mid1.2")
    time.sleep(QUIET_SECONDS)
    journal_disk.free()
    field.wait_finished(delivery)
    uncertain = field.ids(delivery, UNCERTAIN)
    assert len(uncertain) <= CONNECTIONS
    assert field.ids(delivery, SENT) == set(range(1, PEOPLE + 1)) - uncertain
    truth = field.truth(delivery)
    assert set(truth.values()) == {1}
    assert field.ids(delivery, SENT) <= set(truth)


@pytest.fixture(params=ways()[:1])  # one of them: root may not limit PostgreSQL, which is another user's then
def home_disk(request: pytest.FixtureRequest) -> Iterator[tuple[Home, FullDisk]]:
    """A home on a disk of its own, and that disk; what its sandbox keeps is elsewhere, as the world is."""
    outside = Path(tempfile.mkdtemp(prefix="midsource-full-", dir="/tmp"))
    outside.chmod(0o711)
    folder = outside / "d"
    folder.mkdir(mode=0o711)
    home = Home(folder / "h")
    with disk(request.param, folder, HOME_MEGABYTES, lambda: _everything_of(home)) as made:
        home.init()
        (outside / "sandbox").mkdir()
        (home.path / "sandbox").symlink_to(outside / "sandbox")
        home.up()
        home.people("all", [f"p{n}@{'gmail' if n % 2 else 'orange'}.example" for n in range(PEOPLE // 2)])
        try:
            yield home, made
        finally:
            made.free()
            home.end()
    shutil.rmtree(outside, ignore_errors=True)


@pytest.mark.timeout(400)
def test_with_every_journal_and_both_databases_on_a_full_disk_nothing_is_lost(home_disk: tuple[Home, FullDisk]) -> None:
    """Two deliveries: the disk is full while one is handed over, and while the other is sent."""
    home, full = home_disk
    for share_at_mid, share_tried in ((0.2, 0.0), (1.0, 0.2)):
        delivery = home.delivery("all")
        home.run("delivery", "send", str(delivery))
        _wait_for(home, delivery, share_at_mid, share_tried)
        full.fill()
        time.sleep(FULL_SECONDS)
        assert ControlClient(home.path).is_running(), "the supervisor lives"
        said = [home.run("status", code=None), home.run("delivery", "show", str(delivery), code=None)]
        assert not any("Traceback" in done.err + done.out for done in said)
        full.free()
        home.wait_over(delivery, 120)
        found = account_everybody(home, delivery)
        assert len(found.ids(MessageState.SENT)) == PEOPLE // 2
        assert max(found.copies.values()) == 1
        home.wait_until(lambda: home.run("status", code=None).code == 0, "everything runs again", 90)


def _senders(field: Field) -> list[int]:
    return [one.pid for one in field.processes if one.poll() is None and b"mta@" in _words(one.pid)]


def _words(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _everything_of(home: Home) -> list[int]:
    """Return the supervisor, PostgreSQL's holder, and everything below them, without the sandbox."""
    state = State.read(HomeFiles(home.path))
    pids = [*family(home.pid("supervisor")), *family(state.holder)]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and b"sandbox@" not in _words(pid)]


def _says_full(field: Field, name: str) -> bool:
    lines = [json.loads(line) for line in field.log(name).splitlines() if '"event": "journal.full"' in line]
    return any(line["level"] == "error" and line["why"] for line in lines)


def _when_quiet(field: Field, delivery: int) -> int:
    """Return how many are sent once that number stands still."""
    last, since = -1, time.monotonic()
    deadline = since + 30
    while time.monotonic() - since < QUIET_SECONDS:
        now = field.ledger(delivery).get(SENT, 0)
        if now != last:
            last, since = now, time.monotonic()
        assert time.monotonic() < deadline, "it goes on sending"
        time.sleep(0.05)
    return last


def _wait_for(home: Home, delivery: int, share_at_mid: float, share_tried: float) -> None:
    eye, people = Eye(home), PEOPLE // 2
    progress, deadline = Progress(people), time.monotonic() + 60
    while progress.at_mid < share_at_mid * people or progress.outcomes < share_tried * people:
        progress = eye.look(delivery, progress)
        assert time.monotonic() < deadline, progress
        time.sleep(0.01)
    eye.close()

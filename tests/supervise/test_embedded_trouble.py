"""What can be wrong with the embedded PostgreSQL: versions, binaries, disks, strangers, a long recovery."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from midsource.model.errors import MidsourceError, Unhealthy
from midsource.supervise import binaries
from midsource.supervise.cluster import processes_in
from midsource.supervise.places import Place, settle
from midsource.supervise.postgres import EmbeddedPostgres
from midsource.supervise.state import Phase

Make = Callable[..., EmbeddedPostgres]
Ended = Callable[[EmbeddedPostgres], None]

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


def works(server: EmbeddedPostgres) -> None:
    """Start the server and use it."""
    with server.use() as database:
        database.ensure_database("marketing")
        with psycopg.connect(database.dsn("marketing")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_another_major_version_is_a_sentence_and_the_older_one_still_runs(home: Path, make_server: Make) -> None:
    older = binaries.find(None).parents[1] / "pginstall" / "bin"
    if not (older / "postgres").exists():
        pytest.skip("the wheel on this platform carries one version only")
    server = make_server(home, postgres_bin=older)
    with server.use() as database, psycopg.connect(database.dsn("postgres")) as connection:
        row = connection.execute("SHOW server_version_num").fetchone()
    assert row is not None
    assert row[0].startswith("16")
    server.stop_now()
    with pytest.raises(Unhealthy, match=r"was made by PostgreSQL 16, the binaries .* 18: set MIDSOURCE_POSTGRES_BIN"):
        works(make_server(home))


def test_a_folder_without_binaries_is_a_sentence(home: Path, make_server: Make) -> None:
    with pytest.raises(Unhealthy, match=r"there is no postgres and initdb in .*: correct MIDSOURCE_POSTGRES_BIN"):
        works(make_server(home, postgres_bin=home))


def test_a_postgresql_that_is_too_old_is_a_sentence(home: Path) -> None:
    for name in ("postgres", "initdb"):
        (home / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 15.9'\n")
        (home / name).chmod(0o755)
    with pytest.raises(Unhealthy, match="is PostgreSQL 15, older than 16"):
        binaries.prepare(home, None)


def test_binaries_of_another_machine_are_a_sentence(home: Path) -> None:
    for name in ("postgres", "initdb"):
        (home / name).write_bytes(b"\x7fELF not for this machine")
        (home / name).chmod(0o755)
    with pytest.raises(Unhealthy, match="does not run on this system"):
        binaries.prepare(home, None)


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """The home on a file system of its own."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0755", "tmpfs", str(home)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("this system does not let root mount")
    yield home
    subprocess.run(["umount", "--lazy", str(home)], check=True)


@only_root
def test_a_full_disk_is_a_sentence_and_nothing_is_half_made(small_disk: Path, make_server: Make) -> None:
    server = make_server(small_disk)
    with pytest.raises(MidsourceError, match=r"the disk that holds .* is full .* free some space"):
        works(server)
    assert sorted(path.name for path in (small_disk / "postgres").iterdir()) == ["postmaster.lock"]
    subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
    works(server)
    server.stop_now()


@only_root
def test_a_disk_that_filled_up_later_is_a_sentence_until_there_is_room(small_disk: Path, make_server: Make) -> None:
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    server = make_server(small_disk)
    works(server)
    server.stop_now()
    filler = small_disk / "filler"
    with filler.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, shutil.disk_usage(small_disk).free)
    with pytest.raises(MidsourceError, match=r"the disk that holds .* is full .* free some space"):
        works(server)
    filler.unlink()
    works(server)
    server.stop_now()


def test_a_server_somebody_started_by_hand_is_left_alone(home: Path, make_server: Make, ended: Ended) -> None:
    server = make_server(home)
    works(server)
    ended(server)
    place: Place = settle(server.files)
    assert place.data.is_dir()
    with subprocess.Popen(["sleep", "60"], cwd=place.data) as stranger:  # as a postmaster's its folder is the data
        try:
            assert processes_in(place.data) == [stranger.pid]
            with pytest.raises(
                Unhealthy, match=rf"that midsource did not start works in .* \(process {stranger.pid}\)"
            ):
                works(server)
        finally:
            stranger.kill()
    works(server)


@pytest.mark.slow
def test_a_recovery_is_waited_for_however_long_it_takes(home: Path, make_server: Make) -> None:
    """Longer than the ten seconds after which others give up; the startup process is halted to make it so."""
    told: list[str] = []
    server = make_server(
        home, settings={"fsync": "off", "log_startup_progress_interval": "200ms"}, progress=told.append
    )
    counted: list[int] = []

    def use_it() -> None:
        with server.use() as database, psycopg.connect(database.dsn("kept")) as connection:
            row = connection.execute("SELECT count(*) FROM t").fetchone()
            counted.append(row[0] if row else 0)

    for _ in range(5):  # a recovery may be quicker than we are
        user = threading.Thread(target=use_it)
        startup = _halted_recovery(server, user)
        user.join(2)
        if user.is_alive():
            break
        counted.clear()
    user.join(11)
    assert user.is_alive()
    assert server.status().phase is Phase.STARTING
    os.kill(startup, signal.SIGCONT)
    user.join(60)
    assert counted == [300000]
    assert any("PostgreSQL recovers" in sentence for sentence in told), told


def _halted_recovery(server: EmbeddedPostgres, user: threading.Thread) -> int:
    """Write much, kill the server, let ``user`` want it, and halt the recovery that follows; return who recovers."""
    with server.use() as database:
        database.ensure_database("kept")
        with psycopg.connect(database.dsn("kept")) as connection:
            connection.execute("DROP TABLE IF EXISTS t")
            connection.execute("CREATE TABLE t AS SELECT i, repeat('x', 200) FROM generate_series(1, 300000) i")
        before = server.status()
        os.kill(before.holder, signal.SIGKILL)
        os.kill(before.postmaster, signal.SIGKILL)
    user.start()
    startup = 0
    deadline = time.monotonic() + 30
    while not startup and time.monotonic() < deadline:
        startup = next((pid for pid in processes_in(Path(before.data)) if _is_startup(pid)), 0)
    assert startup, "no startup process was seen"
    with contextlib.suppress(ProcessLookupError):
        os.kill(startup, signal.SIGSTOP)
    return startup


def _is_startup(pid: int) -> bool:
    try:
        return b"startup" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False

"""Where the embedded PostgreSQL lives: root and not, long paths, closed folders, odd locales, other versions."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from midsource.model.errors import MidsourceError, Unhealthy
from midsource.supervise import binaries
from midsource.supervise.cluster import processes_in
from midsource.supervise.places import HomeFiles, Place, private_folder, settle, short_folder
from midsource.supervise.postgres import EmbeddedPostgres
from midsource.supervise.spawn import Account
from midsource.supervise.state import Phase

Make = Callable[..., EmbeddedPostgres]
Ended = Callable[[EmbeddedPostgres], None]

IS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not IS_ROOT, reason="only root can do this")
OTHER_UID = 64_001  # a number nobody has

AS_SOMEBODY = """
import os, sys, time
from pathlib import Path
import psycopg
from midsource.supervise.postgres import EmbeddedPostgres
home, runtime = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None
server = EmbeddedPostgres(home, runtime_dir=runtime, settings={"fsync": "off"}, idle_seconds=0.2)
with server.use() as database:
    database.ensure_database("mine")
    with psycopg.connect(database.dsn("mine")) as connection:
        who, = connection.execute("SELECT current_user").fetchone()
    print(os.geteuid(), who, server.status().socket, os.stat(server.status().data).st_uid, flush=True)
server.stop_now()
"""


@pytest.fixture
def somebody(open_folder: Path) -> Iterator[str]:
    """The name of a user without rights that this system can name (PostgreSQL insists on a name)."""
    yield "nobody" if IS_ROOT else pwd.getpwuid(os.geteuid()).pw_name
    if IS_ROOT:
        shutil.rmtree(f"/tmp/midsource-{pwd.getpwnam('nobody').pw_uid}", ignore_errors=True)


def run_as_somebody(name: str, *arguments: str, env: dict[str, str] | None = None) -> list[str]:
    """Run the script above as an ordinary user; by root with setpriv, reading allowed (the interpreter may be closed)."""
    argv = [sys.executable, "-c", AS_SOMEBODY, *arguments]
    if IS_ROOT:
        allowed = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
        argv = [
            "setpriv",
            "--reuid",
            name,
            "--clear-groups",
            "--regid",
            str(pwd.getpwnam(name).pw_gid),
            *allowed,
            *argv,
        ]
    made = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=env, cwd="/")
    assert made.returncode == 0, made.stderr
    return made.stdout.split()


def give(folder: Path, name: str) -> Path:
    if IS_ROOT:
        os.chown(folder, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)
    return folder


def works(server: EmbeddedPostgres) -> str:
    """Start the server, use it, and return the socket folder it had."""
    with server.use() as database:
        database.ensure_database("marketing")
        with psycopg.connect(database.dsn("marketing")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        return server.status().socket


@pytest.mark.skipif(IS_ROOT and shutil.which("setpriv") is None, reason="setpriv (util-linux) is not installed")
def test_an_ordinary_user_runs_it_as_himself(home: Path, somebody: str) -> None:
    uid, role, socket, owner = run_as_somebody(somebody, str(give(home, somebody)))
    assert int(uid) == int(owner) == pwd.getpwnam(somebody).pw_uid != 0
    assert role == "midsource"
    assert socket == str(home / "postgres" / "socket")


@pytest.mark.skipif(IS_ROOT and shutil.which("setpriv") is None, reason="setpriv (util-linux) is not installed")
def test_an_ordinary_user_with_a_long_home_gets_a_short_socket(home: Path, open_folder: Path, somebody: str) -> None:
    long = home / ("ordner " * 10) / ("é" * 40)
    long.mkdir(parents=True)
    give(long, somebody)
    *_, socket, _ = run_as_somebody(somebody, str(long))
    assert socket.startswith(f"/tmp/midsource-{pwd.getpwnam(somebody).pw_uid}/")
    runtime = open_folder / f"runtime-{home.name}"
    runtime.mkdir(mode=0o700)
    *_, socket, _ = run_as_somebody(somebody, str(long), str(give(runtime, somebody)))
    assert Path(socket).parent == runtime


def test_a_home_path_of_two_hundred_bytes(home: Path, make_server: Make) -> None:
    long = home / ("a" * 100) / ("b" * 100)
    long.mkdir(parents=True)
    socket = works(make_server(long))
    assert len(socket) < 90
    assert stat.S_IMODE(Path(socket).stat().st_mode) == 0o700


def test_a_home_path_with_quotes_blanks_and_umlauts(home: Path, make_server: Make) -> None:
    odd = home / "l'été \"de\" 'Ö\\n"
    odd.mkdir()
    assert works(make_server(odd)) == str(odd / "postgres" / "socket")


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "xx_YY.UTF-8"},
        {"LC_ALL": "C", "LANG": "POSIX"},
        {"LC_ALL": "tr_TR.ISO-8859-9", "LANGUAGE": "tr"},
        {
            "PGHOST": "nowhere.invalid",
            "PGPORT": "1",
            "PGOPTIONS": "-c nonsense=1",
            "PGSSLMODE": "require",
            "PGUSER": "x",
        },
        {"PGCLIENTENCODING": "LATIN1", "TZ": "nowhere", "PGDATABASE": "x", "PGPASSWORD": "x"},
    ],
    ids=["unknown", "c", "turkish", "libpq", "libpq-odd"],
)
def test_the_environment_of_the_caller_does_not_matter(home: Path, environment: dict[str, str]) -> None:
    program = (
        "import sys, psycopg; from pathlib import Path; from midsource.supervise.postgres import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(Path(sys.argv[1]), settings={'fsync': 'off'}, idle_seconds=0.2)\n"
        "with server.use() as database: print(database.ensure_database('x'))\n"
        "server.stop_now()"
    )
    made = subprocess.run(
        [sys.executable, "-c", program, str(home)],
        env={"PATH": os.defpath, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (made.stdout.strip(), made.returncode) == ("True", 0), made.stderr


def test_a_connection_the_server_refuses_is_a_sentence_not_a_wait(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTZ", "Mars/Phobos")  # libpq hands it to the server, which knows no such zone
    with (
        pytest.raises(Unhealthy, match=r'refuses us \(.*invalid value for parameter "TimeZone"'),
        server.use(),
    ):
        pass


@only_root
def test_root_with_a_closed_home_keeps_the_data_in_the_system_folder(
    home: Path, open_folder: Path, make_server: Make, ended: Ended
) -> None:
    closed = home / "root"
    inner = closed / "home"
    inner.mkdir(parents=True)
    closed.chmod(0o700)
    server = make_server(inner)
    works(server)
    base = Path(HomeFiles(inner).location.read_text(encoding="utf-8").strip())
    assert base.parent == open_folder / "system"
    assert (base / "data").stat().st_uid != 0
    assert stat.S_IMODE((base / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700  # not ours: as it was
    assert stat.S_IMODE(inner.stat().st_mode) == 0o755
    ended(server)
    closed.rename(home / "elsewhere")  # the record moves with the home
    moved = make_server(home / "elsewhere" / "home")
    with moved.use() as database:
        assert database.ensure_database("marketing") is False


@only_root
def test_root_copies_binaries_that_the_servers_user_may_not_read(
    home: Path, open_folder: Path, make_server: Make
) -> None:
    closed = open_folder / f"closed-{home.name}"
    closed.mkdir(mode=0o700)
    package = binaries.find(None).parents[1]
    installation = binaries.find(None).parent.name
    shutil.copytree(package / installation, closed / package.name / installation, symlinks=True)
    if (libraries := package.with_name(f"{package.name}.libs")).is_dir():
        shutil.copytree(libraries, closed / libraries.name)
    bin_folder = closed / package.name / installation / "bin"
    system = open_folder / f"system-{home.name}"
    works(make_server(home, postgres_bin=bin_folder, system_folder=system))
    copies = list(system.glob("binaries-*"))
    assert len(copies) == 1
    assert copies[0].stat().st_uid == 0
    assert not list(copies[0].rglob("include"))
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    works(make_server(home, postgres_bin=bin_folder, system_folder=system))
    assert list(system.glob("binaries-*")) == copies


def test_a_home_that_was_moved_still_works(home: Path, make_server: Make, ended: Ended) -> None:
    (home / "before").mkdir()
    server = make_server(home / "before")
    works(server)
    ended(server)
    (home / "before").rename(home / "after")
    with make_server(home / "after").use() as database:
        assert database.ensure_database("marketing") is False


def test_a_folder_somebody_else_planted_is_refused(home: Path) -> None:
    account = Account.of_uid(os.geteuid())
    open_to_all = home / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (home / "link").symlink_to(home)
    (home / "file").touch()
    for planted in ("open", "link", "file"):
        with pytest.raises(Unhealthy, match=r"is not a folder of user .* alone"):
            private_folder(home / planted, account)
    assert stat.S_IMODE(open_to_all.stat().st_mode) == 0o777
    if IS_ROOT:
        foreign = home / "foreign"
        foreign.mkdir(mode=0o700)
        os.chown(foreign, OTHER_UID, OTHER_UID)
        with pytest.raises(Unhealthy, match="is not a folder of user root alone"):
            private_folder(foreign, None)


def test_a_runtime_folder_of_somebody_else_is_not_used(home: Path) -> None:
    if IS_ROOT:
        os.chown(home, OTHER_UID, OTHER_UID)
        foreign = home
    else:
        foreign = Path("/")
    folder = short_folder(HomeFiles(home), foreign)
    assert folder.parent == Path(f"/tmp/midsource-{os.geteuid()}")
    folder.rmdir()


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


@only_root
def test_a_full_disk_is_a_sentence_and_nothing_is_half_made(home: Path, make_server: Make) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0755", "tmpfs", str(home)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("this system does not let root mount")
    try:
        server = make_server(home)
        with pytest.raises(MidsourceError, match=r"the disk that holds .* is full .* free some space"):
            works(server)
        assert sorted(path.name for path in (home / "postgres").iterdir()) == ["postmaster.lock"]
        subprocess.run(["mount", "-o", "remount,size=400m", str(home)], check=True)
        works(server)
        server.stop_now()
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)


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
    with server.use() as database:
        database.ensure_database("kept")
        with psycopg.connect(database.dsn("kept")) as connection:
            connection.execute("CREATE TABLE t AS SELECT i, repeat('x', 200) FROM generate_series(1, 300000) i")
        before = server.status()
        os.kill(before.holder, signal.SIGKILL)
        os.kill(before.postmaster, signal.SIGKILL)
    counted: list[int] = []

    def use_it() -> None:
        with server.use() as database, psycopg.connect(database.dsn("kept")) as connection:
            row = connection.execute("SELECT count(*) FROM t").fetchone()
            counted.append(row[0] if row else 0)

    user = threading.Thread(target=use_it)
    user.start()
    startup = 0
    deadline = time.monotonic() + 30
    while not startup and time.monotonic() < deadline:
        startup = next((pid for pid in processes_in(Path(before.data)) if _is_startup(pid)), 0)
    assert startup, "no startup process was seen"
    os.kill(startup, signal.SIGSTOP)
    user.join(13)
    assert user.is_alive()
    assert server.status().phase is Phase.STARTING
    os.kill(startup, signal.SIGCONT)
    user.join(60)
    assert counted == [300000]
    assert any("PostgreSQL recovers" in sentence for sentence in told), told


def _is_startup(pid: int) -> bool:
    try:
        return b"startup" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False

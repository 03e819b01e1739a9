"""Where the embedded PostgreSQL lives: root and not, long paths, closed folders, odd locales, other versions."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from midsource.model.errors import Unhealthy
from midsource.supervise import binaries
from midsource.supervise.places import HomeFiles, private_folder, short_folder
from midsource.supervise.postgres import EmbeddedPostgres
from midsource.supervise.spawn import Account

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
def test_a_new_home_where_an_old_one_was_removed_starts_afresh_and_leaves_the_old_database(
    home: Path, make_server: Make, ended: Ended
) -> None:
    closed = home / "root"
    inner = closed / "home"
    inner.mkdir(parents=True)
    closed.chmod(0o700)
    first = make_server(inner)
    works(first)
    old = Path(HomeFiles(inner).location.read_text(encoding="utf-8").strip())
    ended(first)
    HomeFiles(inner).location.unlink()  # the same home, having lost only its record, finds its database again
    works(first)
    ended(first)
    shutil.rmtree(inner)
    inner.mkdir()
    second = make_server(inner)
    works(second)
    assert Path(HomeFiles(inner).location.read_text(encoding="utf-8").strip()) != old
    assert (old / "data" / "PG_VERSION").exists()


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

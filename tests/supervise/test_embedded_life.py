"""The life of the embedded PostgreSQL: first start, its users, its end, and every way to be killed."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from midsource.model.errors import Failed, NotFound, Unhealthy, UserError
from midsource.supervise.locks import is_held
from midsource.supervise.places import HomeFiles, settle
from midsource.supervise.postgres import EmbeddedPostgres, PostgresUse
from midsource.supervise.postgres_holder import SHUTDOWN_SECONDS
from midsource.supervise.state import Phase, State

Until = Callable[..., None]
Ended = Callable[[EmbeddedPostgres], None]

USER_OF_A_HOME = """
import sys
from pathlib import Path
from midsource.supervise.postgres import EmbeddedPostgres
home, system = map(Path, sys.argv[1:3])
server = EmbeddedPostgres(home, system_folder=system, settings={"fsync": "off"}, idle_seconds=0.5)
with server.use() as database:
    database.ensure_database("shared")
    print(database.dsn("shared"), flush=True)
    sys.stdin.readline()
"""


def a_user(home: Path, system: Path, **options: object) -> subprocess.Popen[str]:
    """Start another process that uses the server until it gets a line."""
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-c", USER_OF_A_HOME, str(home), str(system)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def keep_a_row(database: PostgresUse) -> str:
    """Write a row that must survive; returns the URL of the database it is in."""
    database.ensure_database("shared")
    url = database.dsn("shared")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (id int)")
        connection.execute("INSERT INTO kept VALUES (1)")
    return url


def test_first_start_makes_a_database_that_psycopg_and_sqlalchemy_open(server: EmbeddedPostgres) -> None:
    with server.use() as database:
        assert database.ensure_database("marketing") is True
        assert database.ensure_database("marketing") is False
        engine = create_engine(database.dsn("marketing", driver="postgresql+psycopg"))
        with engine.connect() as connection:
            row = connection.execute(
                text(
                    "SELECT current_user, datlocprovider, datlocale, pg_encoding_to_char(encoding), upper('é')"
                    " FROM pg_database WHERE datname = current_database()"
                )
            ).one()
        engine.dispose()
    assert tuple(row) == ("midsource", "b", "C.UTF-8", "UTF8", "É")


def test_no_home_is_a_sentence(open_folder: Path) -> None:
    with pytest.raises(NotFound, match="there is no home folder"), EmbeddedPostgres(open_folder / "nothing").use():
        pass


def test_the_role_of_the_instances_is_no_superuser_and_sees_statistics(server: EmbeddedPostgres) -> None:
    with server.use() as database, psycopg.connect(database.dsn("postgres")) as connection:
        row = connection.execute(
            "SELECT rolsuper, rolcreatedb, pg_has_role('pg_monitor', 'member') FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert row == (False, True, True)


def test_nobody_comes_in_without_the_password_nor_over_the_network(server: EmbeddedPostgres) -> None:
    with server.use() as database:
        socket = server.status().socket
        for user in ("postgres", "midsource"):
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(host=socket, dbname="postgres", user=user, password="guess")
        with psycopg.connect(database.dsn("postgres")) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
            assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
            assert connection.execute("SHOW fsync").fetchone() == ("off",)  # passed through for the test


def test_what_we_make_is_closed_to_others(server: EmbeddedPostgres, files: HomeFiles, home: Path) -> None:
    with server.use():
        status = server.status()
        for folder in (home / "run", home / "keys", home / "log", Path(status.socket), Path(status.data)):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
        for file in (files.password("midsource"), files.password("postgres"), files.owner_lock, files.log):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(home.stat().st_mode) == 0o755  # as it was


def test_two_users_share_one_server_and_the_last_one_stops_it(
    server: EmbeddedPostgres, home: Path, open_folder: Path, ended: Ended, alive: Callable[[int], bool]
) -> None:
    first = a_user(home, open_folder / "system")
    assert first.stdin is not None
    assert first.stdout is not None
    first.stdout.readline()
    with server.use() as database:
        url = keep_a_row(database)
        postmaster = server.status().postmaster
        first.communicate("\n", timeout=30)  # the one who started it leaves
        time.sleep(1.5)  # three times the idle time
        assert count(url) == 1
        assert server.status().postmaster == postmaster
    ended(server)
    assert not alive(postmaster)


def test_a_user_killed_with_9_is_not_counted_any_more(home: Path, open_folder: Path, ended: Ended) -> None:
    user = a_user(home, open_folder / "system")
    assert user.stdout is not None
    user.stdout.readline()
    server = EmbeddedPostgres(home)
    assert server.status().phase is Phase.RUNNING
    with user:
        user.kill()
    ended(server)


def test_five_users_at_once_start_one_server(home: Path, open_folder: Path, ended: Ended) -> None:
    users = [a_user(home, open_folder / "system") for _ in range(5)]
    try:
        urls = {user.stdout.readline().strip() for user in users if user.stdout is not None}
        assert len(urls) == 1
        with psycopg.connect(urls.pop()) as connection:
            row = connection.execute("SELECT current_database()").fetchone()
        assert row == ("shared",)
        assert (home / "log" / "postgres.log").read_text(encoding="utf-8").count("starting PostgreSQL") == 1
    finally:
        for user in users:
            user.communicate("\n", timeout=30)
    ended(EmbeddedPostgres(home))


def test_a_user_who_comes_while_it_stops_gets_the_next_one(server: EmbeddedPostgres, ended: Ended) -> None:
    for _ in range(3):
        with server.use() as database:
            database.ensure_database("again")
        time.sleep(0.55)  # about when the holder makes up its mind
    ended(server)


def test_stop_now_stops_it_under_its_users(server: EmbeddedPostgres) -> None:
    with server.use() as database:
        assert server.stop_now() is True
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(database.dsn("postgres"))
        with server.use() as again, psycopg.connect(again.dsn("postgres")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert server.stop_now() in {True, False}
    assert server.stop_now() is False


def test_sigterm_to_the_holder_is_a_clean_stop(server: EmbeddedPostgres, ended: Ended) -> None:
    with server.use():
        os.kill(server.status().holder, signal.SIGTERM)
        ended(server)
    assert server.files.log.read_text(encoding="utf-8").rstrip().endswith("database system is shut down")


def test_holder_killed_with_9_takes_the_server_along_and_the_next_user_starts_another(
    server: EmbeddedPostgres, until: Until, alive: Callable[[int], bool]
) -> None:
    with server.use() as database:
        keep_a_row(database)
        before = server.status()
        os.kill(before.holder, signal.SIGKILL)
        until(lambda: not alive(before.postmaster), "the server follows its holder")
        with server.use() as again:
            assert count(again.dsn("shared")) == 1
        assert server.status().holder != before.holder


def test_revive_starts_a_holder_for_users_who_stay(server: EmbeddedPostgres, until: Until) -> None:
    with server.use() as database:
        assert database.revive() is False
        before = server.status()
        os.kill(before.holder, signal.SIGKILL)
        until(lambda: not is_held(server.files.owner_lock), "the holder is gone")
        assert database.revive() is True
        until(lambda: server.status().phase is Phase.RUNNING, "another server runs")
        with psycopg.connect(database.dsn("postgres")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_postmaster_killed_with_9_is_started_again_and_recovers(server: EmbeddedPostgres, until: Until) -> None:
    with server.use() as database:
        url = keep_a_row(database)
        before = server.status()
        os.kill(before.postmaster, signal.SIGKILL)
        until(lambda: server.status().postmaster not in (0, before.postmaster), "another server starts")
        until(lambda: server.status().phase is Phase.RUNNING, "the server runs again")
        assert server.status().holder == before.holder
        assert count(url) == 1
    assert "automatic recovery in progress" in server.files.log.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_server_that_somebody_shut_down_again_and_again_is_waited_for(server: EmbeddedPostgres, until: Until) -> None:
    """The third time in a row its next start is four seconds away: whoever comes then gets it, not a refusal."""
    with server.use() as use:
        for _ in range(3):
            until(lambda: server.status().phase is Phase.RUNNING, "it runs")
            os.kill(server.status().postmaster, signal.SIGINT)
            until(lambda: server.status().phase is not Phase.RUNNING, "it was shut down")
        until(lambda: server.status().phase is Phase.FAILING, "its next start waits")
        with server.use() as late:
            assert late.dsn("postgres") == use.dsn("postgres")
            with psycopg.connect(late.dsn("postgres")) as conn:
                assert conn.execute("select 1").fetchone() == (1,)


def test_a_server_that_hangs_on_its_way_down_is_ended_and_started_again(server: EmbeddedPostgres, until: Until) -> None:
    """As PostgreSQL 18 does where a fast shutdown meets its recovery; here because its checkpointer stands still."""
    with server.use() as database:
        url = keep_a_row(database)
        with psycopg.connect(url) as connection:
            found = connection.execute(
                "select pid from pg_stat_activity where backend_type = 'checkpointer'"
            ).fetchone()
        assert found is not None
        postmaster = server.status().postmaster
        os.kill(found[0], signal.SIGSTOP)
        os.kill(postmaster, signal.SIGINT)
        until(lambda: server.status().postmaster not in (0, postmaster), "another server", SHUTDOWN_SECONDS + 30)
        until(lambda: server.status().phase is Phase.RUNNING, "it runs")
        assert count(url) == 1


@pytest.mark.slow
def test_an_orphan_that_hangs_on_its_way_down_is_ended_by_the_next_holder(
    server: EmbeddedPostgres, until: Until
) -> None:
    """The holder was killed in the same moment: a crash run met it, and PostgreSQL was away for two minutes."""
    with server.use() as database:
        url = keep_a_row(database)
        with psycopg.connect(url) as connection:
            found = connection.execute(
                "select pid from pg_stat_activity where backend_type = 'checkpointer'"
            ).fetchone()
        assert found is not None
        before = server.status()
        os.kill(found[0], signal.SIGSTOP)
        os.kill(before.holder, signal.SIGKILL)
        server.start_holder()
        until(lambda: server.status().postmaster not in (0, before.postmaster), "another server", SHUTDOWN_SECONDS + 30)
        until(lambda: server.status().phase is Phase.RUNNING, "it runs")
        assert count(url) == 1


def test_postmaster_and_holder_killed_with_9_while_a_backend_works(server: EmbeddedPostgres, until: Until) -> None:
    with server.use() as database:
        keep_a_row(database)
        busy = psycopg.connect(database.dsn("postgres"))
        try:
            before = server.status()
            os.kill(before.holder, signal.SIGKILL)
            os.kill(before.postmaster, signal.SIGKILL)
            with server.use() as again:
                assert count(again.dsn("shared")) == 1
        finally:
            busy.close()


def left_behind(server: EmbeddedPostgres, until: Until) -> Path:
    """Run the server, kill it hard, and return the pid file it leaves."""
    with server.use() as database:
        keep_a_row(database)
        status = server.status()
        os.kill(status.holder, signal.SIGKILL)
        os.kill(status.postmaster, signal.SIGKILL)
        until(lambda: not is_held(settle(server.files).postmaster_lock), "all server processes are gone")
    file = Path(status.data) / "postmaster.pid"
    assert file.exists()
    return file


@pytest.mark.parametrize(
    "torn", [b"", b"12", b"\0" * 64, b"not a number\n/x\n"], ids=["empty", "short", "zeros", "text"]
)
def test_a_torn_pid_file_does_not_keep_it_from_starting(server: EmbeddedPostgres, until: Until, torn: bytes) -> None:
    left_behind(server, until).write_bytes(torn)
    with server.use() as database:
        assert count(database.dsn("shared")) == 1


def test_a_stale_pid_file_does_not_keep_it_from_starting(server: EmbeddedPostgres, until: Until) -> None:
    left_behind(server, until)
    with server.use() as database:
        assert count(database.dsn("shared")) == 1


def test_a_pid_file_naming_a_process_of_somebody_else_does_not(server: EmbeddedPostgres, until: Until) -> None:
    """After a container's restart the old number usually belongs to another process, often of the same user."""
    file = left_behind(server, until)
    owner = file.stat()
    with subprocess.Popen(["sleep", "60"], user=owner.st_uid if os.geteuid() == 0 else None) as other:
        lines = file.read_bytes().split(b"\n")
        file.write_bytes(b"\n".join([str(other.pid).encode(), *lines[1:]]))
        with server.use() as database:
            assert count(database.dsn("shared")) == 1
        other.kill()


def test_a_torn_socket_lock_does_not_keep_it_from_starting(server: EmbeddedPostgres, until: Until) -> None:
    left_behind(server, until)
    lock = server.files.home / "postgres" / "socket" / ".s.PGSQL.5432.lock"
    lock.write_bytes(b"")
    with server.use() as database:
        assert count(database.dsn("shared")) == 1


def test_initdb_killed_half_way_is_begun_anew(server: EmbeddedPostgres, files: HomeFiles) -> None:
    files.make()
    base = settle(files).base
    (base / "data.new" / "base").mkdir(parents=True)
    (base / "data.new" / "PG_VERSION").write_text("18\n")
    with server.use() as database, psycopg.connect(database.dsn("postgres")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not (base / "data.new").exists()


def test_a_setting_postgres_refuses_is_its_sentence(home: Path, make_server: Callable[..., EmbeddedPostgres]) -> None:
    server = make_server(home, settings={"shared_buffers": "many"})
    with pytest.raises(Failed, match='invalid value for parameter "shared_buffers"'), server.use():
        pass
    with make_server(home).use() as database:  # nothing is left in the way
        assert database.ensure_database("x") is True


def test_a_setting_with_a_line_break_is_refused(home: Path, make_server: Callable[..., EmbeddedPostgres]) -> None:
    server = make_server(home, settings={"application_name": "x\nfsync = off"})
    with pytest.raises((UserError, Failed), match="is not a PostgreSQL setting on one line"), server.use():
        pass


def test_lost_password_is_a_sentence(server: EmbeddedPostgres, files: HomeFiles, ended: Ended) -> None:
    with server.use():
        pass
    ended(server)
    files.password("postgres").unlink()
    with pytest.raises(Unhealthy, match=r"its password in .* is gone: restore keys/ from the backup"), server.use():
        pass


def test_lost_password_of_the_instances_is_set_anew(server: EmbeddedPostgres, files: HomeFiles, ended: Ended) -> None:
    with server.use():
        pass
    ended(server)
    files.password("midsource").unlink()
    with server.use() as database:
        assert database.ensure_database("x") is True


def test_a_home_removed_while_its_server_still_ends_does_not_trouble_the_next_one_at_its_path(
    home: Path, make_server: Callable[..., EmbeddedPostgres], until: Until
) -> None:
    """The old holder stays for some idle seconds and then says that it was stopped: to nobody, not to the new home."""
    with make_server(home, idle_seconds=1.5).use():
        old = State.read(HomeFiles(home)).holder
    shutil.rmtree(home)
    home.mkdir(mode=0o755)
    with make_server(home).use() as database:
        until(lambda: not Path(f"/proc/{old}").exists(), "the old holder ends")
        assert State.read(HomeFiles(home)).phase is Phase.RUNNING
        assert database.ensure_database("shared")

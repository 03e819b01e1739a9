"""The embedded PostgreSQL of a home, for whoever needs it: started by the first user, stopped after the last.

    server = EmbeddedPostgres(home, postgres_bin=None, runtime_dir=None, progress=print)
    with server.use() as database:
        database.ensure_database("marketing")
        engine = create_engine(database.dsn("marketing", driver="postgresql+psycopg"))

A user holds ``users.lock`` shared for the length of ``use()``; locks, not lists of pids, count the users. The server
belongs to the *holder*, a small detached process that the first user starts (``postgres_holder``), so whoever started it
may leave while others stay. When the server dies the holder starts it again; when the holder dies the server goes with
it, and the next ``use()``, or ``revive()`` by somebody who stays, starts another. ``use()`` waits without limit while
the server recovers and hands each new sentence of the holder to ``progress``; it raises when the server cannot start.

Settings and binaries are those of the user who started the holder; they change with the next start.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from midsource.model.errors import Failed, Unhealthy
from midsource.supervise import roles
from midsource.supervise.cluster import trouble
from midsource.supervise.locks import is_held, open_lock, try_lock
from midsource.supervise.places import SYSTEM_FOLDER, HomeFiles
from midsource.supervise.restart import POSTGRES_LONGEST_SECONDS
from midsource.supervise.state import Order, Phase, State

IDLE_SECONDS = 5.0  # commands in a row share one server instead of starting it each time
POLL_SECONDS = 0.05  # a first start takes about a second
SILENT_ENDS = 3  # a holder that ends without a reason is started again this often
STOP_SECONDS = 120.0  # the last checkpoint of a busy server with a slow disk
REFUSED_SECONDS = 10.0  # a server reported running may just have died; its holder notices within a beat
FAILING_SECONDS = (
    POSTGRES_LONGEST_SECONDS + 4.0
)  # its next start and what that takes: it comes back where its cause has passed
REVIVE_SECONDS = 5.0  # between two attempts of ``revive``
_HOLDER = "midsource.supervise.postgres_holder"


class PostgresUse:
    """A user's hold on the running server; good until the block of ``EmbeddedPostgres.use`` ends."""

    def __init__(self, server: EmbeddedPostgres, socket: str) -> None:
        self._server = server
        self._socket = socket
        self._revived = 0.0

    def dsn(self, database: str, *, driver: str = "postgresql") -> str:
        """Return the URL of a database; for SQLAlchemy pass ``driver="postgresql+psycopg"``. Holds a password."""
        return roles.url(self._server.files, self._socket, database).replace("postgresql", driver, 1)

    def ensure_database(self, name: str) -> bool:
        """Make the database unless it exists; True if it was made. Raises ``Failed`` when PostgreSQL refuses."""
        try:
            with roles.connect(self._server.files, self._socket, roles.OWNER) as connection:
                if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
                    return False
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            return False  # another process was first
        except psycopg.Error as error:
            raise Failed(f"database {name} could not be made ({error})", "see log/postgres.log") from error
        return True

    def revive(self) -> bool:
        """Start a holder if there is none, without waiting; True if one was started. Cheap: call it each second."""
        now = time.monotonic()
        if is_held(self._server.files.owner_lock) or now - self._revived < REVIVE_SECONDS:
            return False
        self._revived = now
        self._server.start_holder()
        return True


class EmbeddedPostgres:
    """The server of one home.

    ``postgres_bin``: a folder of binaries instead of the wheel's. ``runtime_dir``: the user's runtime folder, for a
    socket whose path in the home would be too long. ``settings``: over our own. ``system_folder``: where root puts what
    the server's user must reach. ``idle_seconds``: how long the server stays up after its last user.
    """

    def __init__(
        self,
        home: Path,
        *,
        postgres_bin: Path | None = None,
        runtime_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
        progress: Callable[[str], None] = lambda _: None,
        system_folder: Path = SYSTEM_FOLDER,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self.files = HomeFiles(home.absolute())
        self._progress = progress
        self._order = Order(
            home=str(self.files.home),
            postgres_bin=str(postgres_bin.absolute()) if postgres_bin else "",
            runtime_folder=str(runtime_dir.absolute()) if runtime_dir else "",
            system_folder=str(system_folder.absolute()),
            idle_seconds=idle_seconds,
            settings=dict(settings or {}),
        )

    @contextmanager
    def use(self) -> Iterator[PostgresUse]:
        """Hold the server for the block, starting it if need be. Raises ``Unhealthy`` or ``Failed`` when it cannot run."""
        lock = self._join()
        try:
            yield PostgresUse(self, self._wait_until_running())
        finally:
            os.close(lock)

    def _join(self) -> int:
        """Become a user: return the descriptor that holds ``users.lock`` shared."""
        try:
            self.files.make()
            lock = open_lock(self.files.users_lock)
        except OSError as error:
            raise trouble(error, self.files.home) from error
        tries = 0
        while not try_lock(lock, shared=True):  # the holder is just stopping: its successor serves us
            tries += 1
            if tries == 2:  # once may be the holder asking, for microseconds, whether anybody is there
                self._progress("PostgreSQL is stopping; it is started again in a moment")
            time.sleep(POLL_SECONDS)
        return lock

    def status(self) -> State:
        """Return the holder's last report, or an absent one when no holder lives."""
        if not self.files.home.is_dir() or not self.files.owner_lock.exists() or not is_held(self.files.owner_lock):
            return State(Phase.ABSENT, "PostgreSQL does not run")
        return State.read(self.files)

    def stop_now(self) -> bool:
        """Stop the server whoever uses it, and wait; False if it did not run. Raises ``Unhealthy`` after two minutes."""
        if self.status().phase is Phase.ABSENT:
            return False
        deadline = time.monotonic() + STOP_SECONDS
        while is_held(self.files.owner_lock):
            self.files.stop_request.touch(mode=0o600)  # again each time: a holder that just starts removes old ones
            if time.monotonic() > deadline:
                raise Unhealthy(f"PostgreSQL was still stopping after {STOP_SECONDS:.0f} s", "see log/postgres.log")
            time.sleep(POLL_SECONDS)
        self.files.stop_request.unlink(missing_ok=True)
        return True

    def start_holder(self) -> None:
        """Start a holder, which detaches itself; it leaves at once if there is one."""
        try:
            log = self.files.holder_log.open("ab")
        except OSError as error:
            raise trouble(error, self.files.home) from error
        with log:
            subprocess.run(
                [sys.executable, "-P", "-m", _HOLDER, self._order.to_json()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PYTHONPATH": os.pathsep.join(_import_path())},
                cwd="/",  # a daemon keeps no folder busy
                start_new_session=True,
                check=False,
            )

    def _wait_until_running(self) -> str:
        """Return the socket folder of the running server, starting a holder whenever there is none."""
        told = ""
        started = 0
        since: dict[Phase, float] = {}
        while True:
            state = State.read(self.files)
            if not is_held(self.files.owner_lock):
                if started and state.phase is Phase.FAILED:
                    raise state.error()
                if started == SILENT_ENDS:
                    raise Unhealthy("PostgreSQL's holder ended without a reason", f"see {self.files.holder_log}")
                self.start_holder()
                started += 1
                continue
            if state.phase is Phase.RUNNING:
                refusal = self._refusal(state.socket)
                if not refusal and is_held(self.files.owner_lock):
                    return state.socket
                if _seconds(since, state.phase) > REFUSED_SECONDS:
                    raise Unhealthy(f"PostgreSQL runs but refuses us ({refusal})", "see log/postgres.log, unset PG...")
            else:
                since.pop(Phase.RUNNING, None)
            if state.phase is Phase.FAILING and _seconds(since, state.phase) > FAILING_SECONDS:
                raise state.error()
            if state.sentence != told and state.phase not in (Phase.RUNNING, Phase.FAILED, Phase.ABSENT):
                told = state.sentence
                self._progress(told)
            time.sleep(POLL_SECONDS)

    def _refusal(self, socket: str) -> str:
        """Connect as any user would and return what was said against it; empty when we got in."""
        try:
            roles.connect(self.files, socket, roles.OWNER).close()
        except psycopg.OperationalError as error:
            return str(error).strip()
        return ""


def _seconds(since: dict[Phase, float], phase: Phase) -> float:
    """Return how long ago a phase was first seen, which is noted where it is new."""
    now = time.monotonic()
    return now - since.setdefault(phase, now)


def _import_path() -> list[str]:
    """Return where this process finds its modules: the holder finds the same ones, however we were started."""
    return [entry for entry in sys.path if Path(entry).is_absolute()]

"""The holder: the one process that owns a home's PostgreSQL. ``python -m midsource.supervise.postgres_holder ORDER``.

Order of events: detach (own session) · take ``owner.lock`` (or leave: somebody else is the holder) · find place, account
and binaries · initdb if there is no data · wait until no process of an earlier server is left (``postmaster.lock``, which
every server process inherits; one that hangs on its way down is ended) · heal pid files · start ``postgres`` as a child that gets SIGINT when we die · wait for it
without limit while it recovers, telling the progress · see to the role `midsource` · RUNNING.

Then: it ends when nobody has held ``users.lock`` for ``idle_seconds`` (it takes that lock exclusively while stopping, so
no user slips in), on SIGTERM, or on a stop request. A server that dies is started again after ``restart``'s back-off.
When the first start fails for good the reason is reported and the holder ends: whoever asks next tries again.

The holder has one thread and no listener. Killed with -9 it takes the server along by the parent-death signal; the next
user starts another. Durable: the data directory. The state file is news, not truth.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from midsource.model.errors import MidsourceError, Unhealthy
from midsource.supervise import cluster, roles
from midsource.supervise.binaries import ENVIRONMENT, Binaries, prepare
from midsource.supervise.locks import held, open_lock, try_lock, unlock
from midsource.supervise.logs import BoundedLog
from midsource.supervise.places import SYSTEM_FOLDER, Place, settle, socket_folder
from midsource.supervise.restart import POSTGRES_LONGEST_SECONDS, Restarts
from midsource.supervise.spawn import spawn
from midsource.supervise.state import Order, Phase, State

BEAT_SECONDS = 0.25  # how often the holder looks around: four short wake-ups a second
PREDECESSOR_SECONDS = 90.0  # an orphaned server gets SIGINT with its parent; its last checkpoint takes this at most
FAILING_AFTER = 3  # this many early deaths in a row are reported to whoever waits
SHUTDOWN_SECONDS = 20.0
"""From a request to shut down to the last checkpoint; after that the server hangs, and is shut down at once (SIGQUIT).

PostgreSQL 18 waits for ever where a fast shutdown comes while it recovers from the death of one of its processes: the
checkpointer is never told. The recovery at the next start costs seconds; nothing that was committed is lost.
"""
READ_BYTES = 65_536  # a pipe's capacity
LAST_WORDS = 50  # lines kept to explain a failed start


class Holder:
    """Owns the server of one home from preparation to its end; ``run`` returns the exit code."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.files = order.files
        self.stop_asked = False
        self._users = open_lock(self.files.users_lock)
        self._log = BoundedLog(self.files.log)
        self._last_words: list[str] = []
        self._going_down: float | None = None
        """Since when the server is to shut down without having come to its last checkpoint."""
        self._data = -1
        """The data folder, held open: while it is, no other folder can pass for it."""
        self._state = State(Phase.PREPARING, "PostgreSQL is being prepared", holder=os.getpid())

    def run(self) -> int:
        """Do all of it; a failure is written to the state file and is exit code 1."""
        self._say(Phase.PREPARING, "PostgreSQL is being prepared")
        self.files.stop_request.unlink(missing_ok=True)
        try:
            place, binaries = self._prepare()
            self._serve(place, binaries)
        except MidsourceError as error:
            self._give_up(error)
            return 1
        except OSError as error:
            self._give_up(cluster.trouble(error, self.files.home))
            return 1
        self._say(Phase.ABSENT, "PostgreSQL was stopped")
        return 0

    def _prepare(self) -> tuple[Place, Binaries]:
        system_folder = self._system_folder
        place = settle(self.files, system_folder)
        bin_folder = Path(self.order.postgres_bin) if self.order.postgres_bin else None
        binaries = prepare(bin_folder, place.account, system_folder)
        password = roles.password(self.files, cluster.SUPERUSER, has_data=place.data.is_dir())
        roles.password(self.files, roles.OWNER, has_data=False)
        if not place.data.is_dir():
            self._say(Phase.PREPARING, f"a new PostgreSQL database is being made{_run_by(place)}")
            lock = self._lock_of_server(place)
            try:
                cluster.initialise(place, binaries, password, keep=(lock,))
            finally:
                os.close(lock)
        cluster.check_version(place, binaries)
        return place, binaries

    def _serve(self, place: Place, binaries: Binaries) -> None:
        """Keep the server running until it is time to stop; returns once it has stopped."""
        self._data = os.open(place.data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        restarts = Restarts()
        has_run = False
        while not self._is_over():
            began = time.monotonic()
            has_run = self._one_life(place, binaries) or has_run
            if self._is_over():
                return
            error = cluster.complaint(self._last_words, place)
            if not has_run:
                raise error
            restarts = restarts.after(time.monotonic() - began)
            phase = Phase.FAILING if restarts.in_a_row >= FAILING_AFTER else Phase.STARTING
            delay = restarts.delay_seconds(POSTGRES_LONGEST_SECONDS)
            self._say(phase, f"PostgreSQL ended ({error.cause}); it is started again in {delay:.0f} s", error.remedy)
            self._pause(delay)

    def _one_life(self, place: Place, binaries: Binaries) -> bool:
        """Start ``postgres``, serve until it ends or is to end; True if it ever answered."""
        lock = self._lock_of_server(place)
        try:
            socket = socket_folder(self.files, place, self._runtime_folder, self._system_folder)
            cluster.heal_pid_files(place, socket)
            settings = cluster.configure(place, socket, self.order.settings)
            server = spawn(
                [binaries.path("postgres"), "-D", str(place.data), f"--config-file={settings}"],
                death_signal=signal.SIGINT,
                output=subprocess.PIPE,
                account=place.account,
                env=ENVIRONMENT,
                cwd=place.base,
                keep=(lock,),
            )
        finally:
            os.close(lock)  # from here on the lock lives as long as the last process of the server
        self._last_words.clear()
        self._going_down = None
        self._say(
            Phase.STARTING,
            "PostgreSQL is starting",
            socket=str(socket),
            data=str(place.data),
            postmaster=server.pid,
            major=binaries.major,
        )
        try:
            return self._watch(server, str(socket))
        finally:
            self._end(server)

    def _watch(self, server: subprocess.Popen[bytes], socket: str) -> bool:
        ready = False
        idle_since: float | None = None
        while server.poll() is None:
            self._read(server, BEAT_SECONDS if ready else BEAT_SECONDS / 5)
            self._help_down(server)
            if not ready and roles.see_to_owner(self.files, socket):
                ready = True
                self._say(Phase.RUNNING, "PostgreSQL runs", socket=socket, postmaster=server.pid)
            if self._is_over():
                self.stop_asked = True
                return ready
            idle_since = None if self._is_used() else (idle_since or time.monotonic())
            if idle_since is not None and time.monotonic() - idle_since >= self.order.idle_seconds:
                self.stop_asked = try_lock(self._users)  # held until we end: the next user waits for our successor
                if self.stop_asked:
                    return ready
        self._read(server, 0)
        return ready

    def _end(self, server: subprocess.Popen[bytes]) -> None:
        """Fast shutdown; its last checkpoint is waited for without limit: it takes as long as it takes.

        Where its data was removed with the home there is none, and it must not remove the socket that a new home may
        have at the same path: it is killed.
        """
        if server.poll() is None:
            self._say(Phase.STOPPING, "PostgreSQL is stopping")
            is_gone = self._is_homeless() and not _is_file(self._data, Path(self._state.data))
            server.send_signal(signal.SIGKILL if is_gone else signal.SIGINT)
        while server.poll() is None:
            self._read(server, BEAT_SECONDS)
            self._help_down(server)
        if server.stdout is not None:
            server.stdout.close()
        self._say(self._state.phase, self._state.sentence, postmaster=0)

    def _read(self, server: subprocess.Popen[bytes], seconds: float) -> None:
        """Pass on what the server says, for at most ``seconds``; progress of a recovery becomes the state's sentence."""
        if server.stdout is None:
            return
        if not select.select([server.stdout], [], [], seconds)[0]:
            return
        data = os.read(server.stdout.fileno(), READ_BYTES)
        if not data:  # closed: the server is about to end, and select would return at once for ever
            time.sleep(min(seconds, 0.05))
            return
        self._log.write(data)
        lines = data.decode("utf-8", "replace").splitlines()
        self._last_words = (self._last_words + lines)[-LAST_WORDS:]
        for line in lines:
            if "shutdown request" in line:
                self._going_down = time.monotonic()
            elif line.endswith("LOG:  shutting down"):
                self._going_down = None
        if self._state.phase is Phase.STARTING:
            for line in lines:
                if "recovery in progress" in line or "redo in progress" in line or "syncing data" in line:
                    self._say(Phase.STARTING, f"PostgreSQL recovers: {line.split('LOG:')[-1].strip()}")

    def _help_down(self, server: subprocess.Popen[bytes]) -> None:
        """Shut a server down at once that was asked to, by whomever, and does not come to it."""
        if self._going_down is not None and time.monotonic() - self._going_down > SHUTDOWN_SECONDS:
            self._going_down = None
            server.send_signal(signal.SIGQUIT)

    def _lock_of_server(self, place: Place) -> int:
        """Wait until no process of an earlier server lives and return the lock that its processes inherited.

        Raises ``Unhealthy`` when one does not go away.
        """
        lock = open_lock(place.postmaster_lock)
        began, is_helped = time.monotonic(), False
        while not try_lock(lock):
            self._say(Phase.STARTING, "PostgreSQL's earlier processes are ending")
            waited = time.monotonic() - began
            is_helped = is_helped or (waited > SHUTDOWN_SECONDS and cluster.end_orphan(place.data))
            if waited > PREDECESSOR_SECONDS:
                os.close(lock)
                raise Unhealthy(
                    f"an earlier PostgreSQL still works in {place.data}", "stop it with pg_ctl, then start again"
                )
            time.sleep(BEAT_SECONDS / 5)
        return lock

    def _is_used(self) -> bool:
        if not try_lock(self._users):
            return True
        unlock(self._users)
        return False

    def _is_over(self) -> bool:
        return self.stop_asked or self.files.stop_request.exists() or self._is_homeless()

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._is_over() and self._is_used():
            time.sleep(BEAT_SECONDS)
        if not self._is_used():
            self.stop_asked = True

    def _say(self, phase: Phase, sentence: str, remedy: str = "", **facts: str | int) -> None:
        told = self._state
        values = {"socket": told.socket, "data": told.data, "postmaster": told.postmaster, "major": told.major, **facts}
        state = State(phase, sentence, remedy, holder=os.getpid(), **values)  # type: ignore[arg-type]
        if state != told or phase is Phase.PREPARING:
            self._state = state
            self._write(state)

    def _give_up(self, error: MidsourceError) -> None:
        unhealthy = isinstance(error, Unhealthy)
        self._write(State(Phase.FAILED, error.cause, error.remedy, unhealthy=unhealthy, holder=os.getpid()))

    def _write(self, state: State) -> None:
        """Write the state, unless our home was removed: another at the same path has a holder and a state of its own."""
        if not self._is_homeless():
            state.write(self.files)

    def _is_homeless(self) -> bool:
        """Tell whether the home whose lock we hold is not the one at its path any more."""
        return not _is_file(self._users, self.files.users_lock)

    @property
    def _runtime_folder(self) -> Path | None:
        return Path(self.order.runtime_folder) if self.order.runtime_folder else None

    @property
    def _system_folder(self) -> Path:
        return Path(self.order.system_folder) if self.order.system_folder else SYSTEM_FOLDER


def _is_file(descriptor: int, path: Path) -> bool:
    """Tell whether what is open is what the path leads to."""
    try:
        opened, there = os.fstat(descriptor), path.stat()
    except FileNotFoundError:
        return False
    return (opened.st_dev, opened.st_ino) == (there.st_dev, there.st_ino)


def _run_by(place: Place) -> str:
    """Return as whom the server will run, where that is not the caller."""
    if place.account is None:
        return ""
    shared = "; other services may share that user: better make a system user midsource before"
    return f", run by user {place.account.name}{shared if place.account.name == 'nobody' else ''}"


def main(argv: list[str]) -> int:
    """Become the holder unless there is one, detach, and run until it is over.

    The lock is taken before the fork and inherited over it: when the caller sees our first process end, either the
    holder owns the lock or somebody else does.
    """
    order = Order.from_json(argv[1])
    with held(order.files.owner_lock) as is_ours:
        if not is_ours:
            return 0
        # Before anybody can see us live: what a killed predecessor wrote must not be taken for our word.
        State(Phase.PREPARING, "PostgreSQL is being prepared").write(order.files)
        if os.fork():
            os._exit(0)  # the caller need not wait for us, nor find a zombie of ours later
        holder = Holder(order)

        def stop(_signal: int, _frame: FrameType | None) -> None:
            holder.stop_asked = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        return holder.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv))

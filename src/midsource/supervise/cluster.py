"""The data directory of the embedded PostgreSQL: made, configured, healed, its complaints put into one sentence.

``initialise`` works in ``data.new`` and renames it, so a data directory exists whole or not at all. Authentication is
SCRAM everywhere, the local socket included. Two roles: ``postgres`` (superuser, used by the holder alone) and
``midsource`` (owns the instance databases; may create databases and read statistics, nothing else).

Root never writes inside ``data``, which belongs to another user: our settings are ``midsource.conf`` beside it, which
includes the file that initdb wrote and overrides it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from midsource.model.errors import Failed, MidsourceError, Unhealthy, UserError
from midsource.store.files import keep_names, write_whole
from midsource.supervise.binaries import BUILTIN_LOCALE_MAJOR, ENVIRONMENT, Binaries
from midsource.supervise.places import Place, make_folder
from midsource.supervise.spawn import Account, run_as

SUPERUSER = "postgres"
INITDB_TIMEOUT_SECONDS = 600.0  # half a second on a good disk; a slow card with fsync takes minutes
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",  # the socket only
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "max_connections": "100",  # one instance of each role (store/budget.py) and room to look inside; more processes ask for more
    "shared_buffers": "128MB",
    "max_locks_per_transaction": "256",  # partitioned by month and by day: one query may touch hundreds of tables
    "max_wal_size": "2GB",  # imports of a million rows without a checkpoint each second
    "wal_compression": "on",
    "fsync": "on",  # every recipient is accounted for, also after a power cut
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "lock_timeout": "5min",  # a forgotten lock becomes an error, not a standstill
    "statement_timeout": "6h",  # longer than any honest reindex of ours, shorter than a night
    "idle_in_transaction_session_timeout": "15min",  # an open transaction stops vacuum
    "client_connection_check_interval": "10s",  # the query of a killed client is cancelled
    "jit": "off",  # our queries are many and short
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",  # we read these messages
    "log_destination": "stderr",
    "logging_collector": "off",  # stderr goes to the holder, which bounds the file
    "log_line_prefix": "%m [%p] %d ",
    "log_startup_progress_interval": "2s",
    "log_lock_waits": "on",
    "log_min_duration_statement": "2s",
    "log_parameter_max_length": "0",  # parameters hold addresses: never in a log
    "log_error_verbosity": "terse",  # so do the DETAIL lines of unique violations
}
_SETTING_NAME = re.compile(r"[a-z_][a-z0-9_.]*")
_COMPLAINT = re.compile(r"FATAL|PANIC|ERROR|error:|could not|No space")
_SPEAKER = re.compile(r"^.*?(?:FATAL|PANIC|ERROR|LOG|error):\s+")
_DISK = "no space left on device"
_READ_BY_SERVER = 0o644
"""It is another user; the folder around decides who else can."""


def initialise(place: Place, binaries: Binaries, superuser_password: str, *, keep: Sequence[int] = ()) -> None:
    """Make the data directory; ``keep`` holds locks that initdb inherits.

    Raises ``Failed`` with initdb's reason; nothing is left half-made.
    """
    part = place.base / "data.new"
    if part.exists():
        shutil.rmtree(part)
    make_folder(part, 0o700, place.account)
    password_file = place.base / "initdb.password"
    try:
        _write_private(password_file, superuser_password, place.account)
        _run_initdb(place, binaries, part, password_file, keep)
        part.rename(place.data)
        keep_names(place.base)
    except OSError as error:
        raise trouble(error, place.base) from error
    finally:
        password_file.unlink(missing_ok=True)
        shutil.rmtree(part, ignore_errors=True)


def _run_initdb(place: Place, binaries: Binaries, target: Path, password_file: Path, keep: Sequence[int]) -> None:
    locale = (
        ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        if binaries.major >= BUILTIN_LOCALE_MAJOR
        else ("--locale=C.UTF-8", "--lc-messages=C")
    )
    argv = [
        binaries.path("initdb"),
        f"--pgdata={target}",
        f"--username={SUPERUSER}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--data-checksums",
        "--no-instructions",
        *locale,
    ]
    try:
        made = run_as(argv, account=place.account, env=ENVIRONMENT, timeout_seconds=INITDB_TIMEOUT_SECONDS, keep=keep)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"initdb was not done after {INITDB_TIMEOUT_SECONDS:.0f} s", "look at the disk") from error
    if made.returncode != 0:
        raise complaint(made.stdout.splitlines(), place)


def check_version(place: Place, binaries: Binaries) -> None:
    """Raise ``Unhealthy`` unless the data directory was made by this major version of PostgreSQL."""
    try:
        text = (place.data / "PG_VERSION").read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise Unhealthy(f"{place.data} is not a data directory of PostgreSQL", "restore it from a backup") from error
    if text != str(binaries.major):
        raise Unhealthy(
            f"the database in {place.data} was made by PostgreSQL {text}, the binaries in {binaries.folder} are"
            f" {binaries.major}",
            f"set MIDSOURCE_POSTGRES_BIN to the bin folder of PostgreSQL {text}, or move the data over with its pg_dump",
        )


def configure(place: Place, socket: Path, settings: Mapping[str, str]) -> Path:
    """Write our settings (``settings`` override them) and return the file the server is started with.

    Raises ``UserError`` on a setting whose name cannot be one.
    """
    rules = place.base / "pg_hba.conf"
    write_whole(rules, "# Made by midsource at each start.\nlocal all all scram-sha-256\n", mode=_READ_BY_SERVER)
    lines = [
        "# Made by midsource at each start: change ALTER SYSTEM settings instead.",
        f"include_if_exists = {_quote(str(place.data / 'postgresql.conf'))}",
        f"hba_file = {_quote(str(rules))}",
        f"unix_socket_directories = {_quote(str(socket))}",
    ]
    for name, value in {**SETTINGS, **settings}.items():
        if not _SETTING_NAME.fullmatch(name) or "\n" in value or "\0" in value:
            raise UserError(f"{name!r} is not a PostgreSQL setting on one line", "correct the settings")
        lines.append(f"{name} = {_quote(value)}")
    file = place.base / "midsource.conf"
    write_whole(file, "\n".join(lines) + "\n", mode=_READ_BY_SERVER)
    return file


def heal_pid_files(place: Place, socket: Path) -> None:
    """Remove pid files that would keep the server from starting although no server lives.

    The caller holds ``postmaster_lock``, which every process of a server of ours inherits, so none is left; a server
    started by hand is found by its working directory. A whole file naming a dead process is left: PostgreSQL knows
    what to do with it (and frees the shared memory it names). A torn one, or one whose pid by now belongs to somebody
    else (usual after the restart of a container), it would refuse. Raises ``Unhealthy`` when a server lives here.
    """
    strangers = processes_in(place.data)
    if strangers:
        raise Unhealthy(
            f"a PostgreSQL that midsource did not start works in {place.data} (process {strangers[0]})",
            "stop it with pg_ctl",
        )
    pid_file = place.data / "postmaster.pid"
    if pid_file.exists() and not _names_a_dead_process(pid_file):
        pid_file.unlink()
    for stale in socket.glob(".s.PGSQL.*"):
        stale.unlink()


def processes_in(folder: Path) -> list[int]:
    """Return the processes whose working directory is ``folder`` (each PostgreSQL process's is its data directory)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").samefile(folder):
                found.append(int(entry.name))
        except OSError:  # it ended meanwhile, or belongs to a user whose processes we may not see
            continue
    return found


def end_orphan(data: Path) -> bool:
    """Shut down at once (SIGQUIT) the server in ``data`` whose holder is gone; False while it is at its last checkpoint, or gone.

    It was asked to shut down when its holder died. PostgreSQL names that checkpoint in the title of the process.
    """
    processes = processes_in(data)
    if any(b"shutdown checkpoint" in _title(pid) for pid in processes):
        return False
    try:
        postmaster = int((data / "postmaster.pid").read_bytes().split(b"\n")[0])
        if postmaster in processes:
            os.kill(postmaster, signal.SIGQUIT)
            return True
    except (OSError, ValueError):  # it ended meanwhile, or left a torn file
        pass
    return False


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _names_a_dead_process(pid_file: Path) -> bool:
    lines = pid_file.read_bytes().split(b"\n")
    if len(lines) < 7 or not lines[0].isdigit():  # pid, data, start, port, socket, address, shared memory
        return False
    try:
        os.kill(int(lines[0]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def trouble(error: OSError, folder: Path) -> MidsourceError:
    """Turn what the operating system said about our own files into an error with a remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full_disk(folder, error.strerror or "")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Failed(f"{error.filename or folder} may not be written ({error.strerror})", "give this user the right")
    return Failed(f"PostgreSQL cannot be run in {folder} ({error})", "repair what it names and start again")


def _full_disk(folder: Path, said: str) -> Failed:
    return Failed(f"the disk that holds {folder} is full ({said})", "free some space and start again")


def complaint(lines: Sequence[str], place: Place) -> MidsourceError:
    """Turn the last words of ``postgres`` or ``initdb`` into an error with a remedy."""
    words = [line for line in lines if _COMPLAINT.search(line) and "the database system is" not in line]
    text = _SPEAKER.sub("", words[-1]).strip() if words else "; ".join(lines[-3:])
    if "contains errors" in text:  # which ones is said by the LOG lines before
        said = [_SPEAKER.sub("", line).strip() for line in lines if "LOG:" in line]
        return Failed(f"PostgreSQL refuses its settings: {'; '.join(said[-3:])}", "correct them and start again")
    if any(_DISK in line.lower() for line in words):
        return _full_disk(place.base, text)
    if "lock file" in text or "Is another postmaster" in text:
        return Unhealthy(f"another PostgreSQL uses {place.base} ({text})", "stop it and start again")
    if "shared memory" in text or "semaphore" in text:
        return Unhealthy(f"PostgreSQL gets no shared memory ({text})", "raise the limits of the system or container")
    return Failed(f"PostgreSQL does not start: {text}", "see the last lines of log/postgres.log")


def _quote(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _write_private(file: Path, text: str, account: Account | None) -> None:
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        if account is not None:
            os.fchown(descriptor, account.uid, account.gid)

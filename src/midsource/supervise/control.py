"""Asking a running supervisor: one JSON line there, one back, over a unix socket that its owner alone may open.

    request   {"verb": "stop", "names": ["web@marketing"]}
    answer    {"ok": true, ...}   or   {"ok": false, "error": "NotFound", "cause": "...", "remedy": "..."}

The socket is ``run/supervisor.sock``; where that path is too long for a socket it is in a short folder, and
``run/supervisor.address`` says where. A line has at most ``LINE_BYTES``; an answer is waited for ``ANSWER_SECONDS``,
longer than the slowest verb (stopping a process that must be killed).
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from midsource.model import errors
from midsource.model.errors import MidsourceError, Unhealthy
from midsource.supervise.locks import is_held
from midsource.supervise.places import HomeFiles, fits_a_socket, short_folder

LINE_BYTES = 1_000_000  # a hundred processes with their last words are far below
ANSWER_SECONDS = 60.0
_NOT_RUNNING = "midsource does not run in {}"
_ERRORS = {
    kind.__name__: kind
    for kind in (errors.UserError, errors.NotFound, errors.Conflict, errors.Failed, errors.Unhealthy)
}


def lock_file(home: Path) -> Path:
    """Return the file that the one supervisor of a home locks."""
    return home / "run" / "supervisor.lock"


def address_file(home: Path) -> Path:
    """Return the file naming the socket."""
    return home / "run" / "supervisor.address"


def socket_path(home: Path, runtime_folder: Path | None) -> Path:
    """Return where the supervisor of this home listens, making the folder it needs."""
    run = home / "run"
    folder = run if fits_a_socket(run) else short_folder(HomeFiles(home), runtime_folder)
    return folder / "supervisor.sock"


class ControlClient:
    """Asks the supervisor of a home."""

    def __init__(self, home: Path) -> None:
        self._home = home.absolute()

    def is_running(self) -> bool:
        """Tell whether a supervisor of this home lives."""
        return lock_file(self._home).exists() and is_held(lock_file(self._home))

    def call(self, verb: str, **args: object) -> dict[str, object]:
        """Ask and return the answer. Raises what the supervisor answered, or ``Unhealthy`` when there is none."""
        try:
            address = address_file(self._home).read_text(encoding="utf-8").strip()
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(ANSWER_SECONDS)
                connection.connect(address)
                connection.sendall(json.dumps({"verb": verb, **args}).encode() + b"\n")
                line = connection.makefile("rb").readline(LINE_BYTES)
        except TimeoutError as error:
            raise Unhealthy(
                f"the supervisor of {self._home} did not answer in {ANSWER_SECONDS:.0f} s",
                "look at its terminal or log",
            ) from error
        except OSError as error:
            if isinstance(error, PermissionError):
                raise Unhealthy(
                    f"the supervisor of {self._home} belongs to another user", "ask as that user, or as root"
                ) from error
            raise Unhealthy(_NOT_RUNNING.format(self._home), "start it with 'midsource up'") from error
        try:
            answer: dict[str, object] = json.loads(line)
        except ValueError as error:
            raise Unhealthy(_NOT_RUNNING.format(self._home) + " any more", "start it with 'midsource up'") from error
        if answer.pop("ok", False):
            return answer
        kind = _ERRORS.get(str(answer.get("error")), errors.Failed)
        raise kind(str(answer.get("cause")), str(answer.get("remedy", "")))


def refusal(error: MidsourceError) -> bytes:
    """Return the answer line for an expected failure."""
    name = type(error).__name__
    return _line({"ok": False, "error": name, "cause": error.cause, "remedy": error.remedy})


def answer(values: dict[str, object]) -> bytes:
    """Return the answer line for what was done."""
    return _line({"ok": True, **values})


def listen(path: Path) -> socket.socket:
    """Return a listening socket at ``path``, 0600. The caller holds the supervisor's lock: what is there is stale."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # no moment at which somebody else could connect
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen()
    listener.settimeout(0)
    return listener


def _line(values: dict[str, object]) -> bytes:
    return json.dumps(values).encode() + b"\n"

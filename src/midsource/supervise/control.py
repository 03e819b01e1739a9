"""The supervisor's end of its control socket, and a client that also knows whether there is one (asking: net/control.py).

    request   {"verb": "stop", "names": ["web@marketing"]}
    answer    {"ok": true, ...}   or   {"ok": false, "error": "NotFound", "cause": "...", "remedy": "..."}

The socket is ``run/supervisor.sock``; where that path is too long for a socket it is in a short folder, and
``run/supervisor.address`` says where.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from midsource.model.errors import MidsourceError
from midsource.net.control import LINE_BYTES, address_file, ask
from midsource.supervise.locks import is_held
from midsource.supervise.places import HomeFiles, fits_a_socket, short_folder

__all__ = ["LINE_BYTES", "ControlClient", "address_file", "answer", "listen", "lock_file", "refusal", "socket_path"]


def lock_file(home: Path) -> Path:
    """Return the file that the one supervisor of a home locks."""
    return home / "run" / "supervisor.lock"


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

    def call(self, verb: str, names: Sequence[str] = ()) -> dict[str, object]:
        """Ask and return the answer. Raises what the supervisor answered, or ``Unhealthy`` when there is none."""
        return ask(self._home, verb, names)


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

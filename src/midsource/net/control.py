"""Asking the supervisor of a home: one JSON line there, one back, over a unix socket that its owner alone may open.

``run/supervisor.address`` says where the socket is while the supervisor lives. A line has at most ``LINE_BYTES``; an
answer is waited for ``ANSWER_SECONDS``, longer than the slowest verb (stopping a process that must be killed). The verbs
are the supervisor's (supervise/processes.py).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from midsource.model import errors
from midsource.model.errors import Unhealthy

LINE_BYTES = 1_000_000  # a hundred processes with their last words are far below
ANSWER_SECONDS = 60.0
_NOT_RUNNING = "midsource does not run in {}"
_ERRORS = {
    kind.__name__: kind
    for kind in (errors.UserError, errors.NotFound, errors.Conflict, errors.Failed, errors.Unhealthy)
}


def address_file(home: Path) -> Path:
    """Return the file naming the socket."""
    return home / "run" / "supervisor.address"


def ask(home: Path, verb: str, names: Sequence[str] = (), *, seconds: float = ANSWER_SECONDS) -> dict[str, object]:
    """Ask and return the answer. Raises what the supervisor answered, or ``Unhealthy`` when there is none."""
    with _connected(home, seconds) as connection:
        connection.sendall(_line(verb, names))
        line = connection.makefile("rb").readline(LINE_BYTES)
    try:
        answer: dict[str, object] = json.loads(line)
    except ValueError as error:
        raise Unhealthy(_NOT_RUNNING.format(home) + " any more", "start it with 'midsource up'") from error
    if answer.pop("ok", False):
        return answer
    kind = _ERRORS.get(str(answer.get("error")), errors.Failed)
    raise kind(str(answer.get("cause")), str(answer.get("remedy", "")))


def tell(home: Path, verb: str, names: Sequence[str] = ()) -> None:
    """Say what is wanted without waiting: for a process that asks for its own restart. Raises ``Unhealthy``."""
    with _connected(home, ANSWER_SECONDS) as connection:
        connection.sendall(_line(verb, names))


@contextmanager
def _connected(home: Path, seconds: float) -> Iterator[socket.socket]:
    try:
        address = address_file(home).read_text(encoding="utf-8").strip()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(seconds)
            connection.connect(address)
            yield connection
    except TimeoutError as error:
        raise Unhealthy(
            f"the supervisor of {home} did not answer in {seconds:.0f} s", "look at its terminal or log"
        ) from error
    except PermissionError as error:
        raise Unhealthy(f"the supervisor of {home} belongs to another user", "ask as that user, or as root") from error
    except OSError as error:
        raise Unhealthy(_NOT_RUNNING.format(home), "start it with 'midsource up'") from error


def _line(verb: str, names: Sequence[str]) -> bytes:
    return json.dumps({"verb": verb, "names": list(names)}).encode() + b"\n"

"""A home whose commands are forked off a process that has everything imported: the same commands, without their second
of start, which a run of hundreds of rounds would pay twice a round.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time

from midsource.cli import delivery, launching, main, recipients, running  # noqa: F401 - imported before the fork
from midsource.cli.ground import COMMAND_SECONDS, Done, Home
from midsource.model.errors import Failed

LOOK_SECONDS = 0.01


class QuickHome(Home):
    """A home for a process with a single thread: only such a one may be forked."""

    def run(self, *words: str, code: int | None = 0, seconds: float = COMMAND_SECONDS) -> Done:
        """Run the command in a child. Raises Failed unless it ends with ``code`` (None: any)."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = os.fork()
            if not child:
                _become(["--home", str(self.path), *words], out.fileno(), err.fileno())
            ended = _wait(child, seconds)
            out.seek(0)
            err.seek(0)
            said = out.read(), err.read()
        if ended is None:
            raise Failed(f"{words} did not end in {seconds} s: {said}")
        if code is not None and ended != code:
            raise Failed(f"{words} ended with {ended}: {said[0]}{said[1]}")
        return Done(ended, *said)


def _become(words: list[str], out: int, err: int) -> None:
    """Be the command, in a child; never returns."""
    ended = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(source, target)
        try:
            main.main(words)
        except SystemExit as leaves:
            ended = int(leaves.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(ended)


def _wait(child: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(LOOK_SECONDS)

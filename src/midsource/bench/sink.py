"""The sinks: our own light one (`light_sink.c`), compiled on the spot, and Postfix's `smtp-sink` where it is installed.

The light sink takes everything and keeps nothing at a tenth of the CPU of smtp-sink, so what is measured is the sender.
It counts: after a run the number of messages it took must be the number the ledger says were sent.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from midsource.bench.stage import Bench, stop
from midsource.model.errors import Failed

SOURCE = Path(__file__).with_name("light_sink.c")
COMPILE_SECONDS = 60
ANSWER_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Counted:
    """What a light sink took so far."""

    messages: int
    bytes: int
    connections: int
    open: int


@dataclass(frozen=True, slots=True)
class LightSink:
    """A running light sink."""

    port: int
    pid: int

    @property
    def address(self) -> str:
        """Host and port, as a smarthost is written."""
        return f"127.0.0.1:{self.port}"

    def counted(self) -> Counted:
        """Ask it what it took."""
        with socket.create_connection(("127.0.0.1", self.port), ANSWER_SECONDS) as line, line.makefile("rb") as answers:
            answers.readline()
            line.sendall(b"XCOUNT\r\n")
            found = re.findall(rb"=(\d+)", answers.readline())
        messages, taken, connections, open_ = map(int, found)
        return Counted(messages, taken, connections - 1, open_ - 1)


def light_sink(bench: Bench, delay_ms: int = 0) -> LightSink:
    """Start a light sink that answers after ``delay_ms``, until the end. Raises Failed without a C compiler."""
    program = bench.once("light sink program", lambda: compiled(bench.folder))
    child = bench.start([str(program), str(delay_ms)], subprocess.PIPE)
    bench.finally_(lambda: stop(child))
    assert child.stdout is not None
    with child.stdout as said:
        port = said.readline().decode("ascii", "replace").strip()
    if not port.isdigit():
        raise Failed("the light sink did not start", "see what it said above")
    return LightSink(int(port), child.pid)


def compiled(folder: Path, source: Path = SOURCE, *options: str) -> Path:
    """Compile a small C program of ours into ``folder``; raises Failed where there is no C compiler, or no Linux."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Failed(f"{source.name} is written in C and there is no compiler", "install cc, then repeat")
    program = folder / source.stem
    try:
        done = subprocess.run(
            [compiler, "-O2", "-o", program, source, *options],
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise Failed(
            f"{compiler} was still compiling after {COMPILE_SECONDS} s", "repeat on a quieter machine"
        ) from exc
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
        raise Failed(f"{compiler} does not compile {source.name} ({first.strip()})", "it needs Linux")
    return program

"""A whole midsource as its operator has it: a home in a folder, the real command, real processes, and ways to break them.

Nothing here reaches inside: what is done goes through ``python -m midsource``; what is believed is read from both databases
and from the sandbox's own truth. Each home has its own PostgreSQL and ports, so several test runs may work side by side.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psycopg

from midsource.cli.launching import rows_of
from midsource.cli.session import embedded, serving
from midsource.cli.setup import free_port
from midsource.config import environment, load
from midsource.model.delivery import FINAL, DeliveryState
from midsource.model.errors import Failed, MidsourceError
from midsource.model.message import MessageState
from midsource.supervise.control import ControlClient
from midsource.supervise.places import HomeFiles
from midsource.supervise.state import State

COMMAND_SECONDS = 120
PORTS_APART = 20
"""Ports between the first candidates of two test runs that start at the same time (by pid): each needs four."""
LOOK_AT_LOGS = "see `midsource logs NAME` of that home"
OPEN = (MessageState.PENDING, MessageState.DEFERRED)


@dataclass(frozen=True, slots=True)
class Done:
    """What a command said: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The JSON object of the last line."""
        value: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return value

    @property
    def sentence(self) -> str:
        """The one sentence of failure. Raises Failed where it is not exactly one, or not the last thing that was said."""
        lines = self.err.strip().splitlines()
        told = [line for line in lines if line.startswith("midsource: ")]
        if len(told) != 1 or lines[-1] != told[0] or "Traceback" in self.err:
            raise Failed(f"not one sentence at the end of what was said: {self.err!r}")
        return told[0]


class Home:
    """One home folder. ``end`` stops everything and removes it."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.path = folder
        self.env = {**environment(), **(env or {})}
        self.port = free_port(20_000 + os.getpid() % 500 * PORTS_APART)

    def run(self, *words: str, code: int | None = 0, seconds: float = COMMAND_SECONDS) -> Done:
        """Run the real command. Raises Failed unless it ends with ``code`` (None: any)."""
        return self.ended(
            words, code, [sys.executable, "-P", "-m", "midsource", "--home", str(self.path), *words], seconds
        )

    def ended(self, words: Sequence[str], code: int | None, argv: Sequence[str], seconds: float) -> Done:
        """Run ``argv`` to its end. Raises Failed where that takes too long, or where it does not end with ``code``."""
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL,
                env=self.env,
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            raise Failed(f"`midsource {' '.join(words)}` did not end in {seconds:.0f} s", LOOK_AT_LOGS) from exc
        if code is not None and done.returncode != code:
            raise Failed(
                f"`midsource {' '.join(words)}` ended with {done.returncode}: {done.stdout}{done.stderr}", LOOK_AT_LOGS
            )
        return Done(done.returncode, done.stdout, done.stderr)

    def json(self, *words: str, code: int | None = 0, seconds: float = COMMAND_SECONDS) -> dict[str, Any]:
        """Run the command with ``--json`` and return its object."""
        return self.run(*words, "--json", code=code, seconds=seconds).json

    def init(self) -> None:
        """Make the home. Its folder is open to pass through, so that root's PostgreSQL lives inside it too."""
        self.path.mkdir(mode=0o711)
        self.path.chmod(0o711)
        self.run("init", "--port", str(self.port))

    def up(self) -> None:
        """Start everything, and wait until it is ready; an earlier supervisor may still be ending."""
        self.wait_until(lambda: not ControlClient(self.path).is_running(), "no supervisor runs", 30)
        self.run("up", "--detach")

    def pid(self, name: str) -> int:
        """Return the pid of a process by its name in ``ps``; also of ``supervisor`` and ``postgres``. 0: none."""
        if name == "postgres":
            return State.read(HomeFiles(self.path)).postmaster
        if name == "supervisor":
            return int(str(ControlClient(self.path).call("status")["pid"]))
        rows = {row["name"]: row for row in self.json("ps")["processes"]}
        return int(rows[name]["pid"])

    def running(self) -> dict[str, int]:
        """Return the processes that run now, by name, with their pids; nothing while there is no supervisor."""
        with contextlib.suppress(MidsourceError, KeyError, ValueError):
            rows = rows_of(ControlClient(self.path).call("ps"))
            return {row["name"]: row["pid"] for row in rows if row["state"] == "running"}
        return {}

    def kill(self, name: str) -> None:
        """Kill -9 a process, and wait until it is gone."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        self.wait_until(lambda: not _lives(pid), f"{name} is gone", 10)

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Wait until a condition holds; a database that is away for the moment is waited for, too."""
        deadline = time.monotonic() + seconds
        trouble = ""
        while True:
            try:
                if holds():
                    return
                trouble = ""
            except (psycopg.Error, MidsourceError) as exc:
                trouble = f" ({exc})"
            if time.monotonic() >= deadline:
                raise Failed(f"not within {seconds} s: {what}{trouble}", LOOK_AT_LOGS)
            time.sleep(0.05)

    def rows(
        self, instance: str, statement: str, params: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Query the database of an instance; what the statement writes is committed."""
        with serving(load(self.path)) as urls, psycopg.connect(urls.use.dsn(instance) if urls.use else "") as conn:
            cursor = conn.execute(statement.encode(), params)
            return list(cursor.fetchall()) if cursor.description else []

    def number(self, instance: str, statement: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> int:
        """Return the one number a query answers."""
        return int(self.rows(instance, statement, params)[0][0])

    def truth(self, delivery: int) -> list[dict[str, Any]]:
        """Return what the sandbox holds of a delivery: one fact for each message and recipient, oldest first."""
        url = f"http://127.0.0.1:{load(self.path).sandbox.http_port}/truth.ndjson"
        answer = httpx2.get(url, params={"delivery": str(delivery)}, timeout=30)
        answer.raise_for_status()
        return [json.loads(line) for line in answer.text.splitlines() if line]

    def people(self, name: str, addresses: Sequence[str]) -> None:
        """Import people with these addresses onto the list ``name``."""
        file = self.path / f"{name}.csv"
        lines = [f"{name}-{n},{address},First{n},fr" for n, address in enumerate(addresses)]
        file.write_text("\n".join(["external_id,email,first_name,language", *lines]) + "\n", encoding="utf-8")
        answer = self.json("recipients", "import", str(file), "--list", name)
        if (answer["stored"], answer["rejected"]) != (len(addresses), 0):
            raise Failed(f"of {len(addresses)} people were stored: {answer}", LOOK_AT_LOGS)

    def delivery(
        self, list_name: str, *, account: str = "defaultEmailMid", uncertain: str = "hold", **changes: str
    ) -> int:
        """Create a delivery to a list from a file; ``changes`` replace content: subject, html, text."""
        folder = self.path / f"files-{list_name}"
        folder.mkdir(exist_ok=True)
        content = {
            "subject": "Bonjour {{ recipient.first_name }}",
            "html": "<p>Bonjour {{ recipient.first_name }}</p><a href='{{ links.unsubscribe }}'>non</a>",
            "text": "Bonjour {{ recipient.first_name }}\n{{ links.unsubscribe }}\n",
        } | changes
        for key in ("html", "text"):
            (folder / key).write_text(content[key], encoding="utf-8")
        (folder / "delivery.toml").write_text(
            f"label = 'to {list_name}'\naccount = '{account}'\nuncertain = '{uncertain}'\nsubject = {json.dumps(content['subject'])}\n"
            f"html = 'html'\ntext = 'text'\n[target]\nlist = '{list_name}'\n[retry]\ncount = 5\nperiod = '2s'\n",
            encoding="utf-8",
        )
        return int(self.json("delivery", "create", "--file", str(folder / "delivery.toml"))["id"])

    def wait_over(self, delivery: int, seconds: float = 90) -> None:
        """Wait until the delivery is over and every result has come back."""

        def is_over() -> bool:
            state = self.number("marketing", "select state from delivery where id = %s", (delivery,))
            waiting = "select coalesce(sum(n), 0) from broad_log_total where delivery_id = %s and state = any(%s)"
            return DeliveryState(state) in FINAL and not self.number("marketing", waiting, (delivery, list(OPEN)))

        try:
            self.wait_until(is_over, f"delivery {delivery} is over and all results are back", seconds)
        except Failed as exc:
            raise Failed(f"{exc.cause}; {self._said(delivery)}", LOOK_AT_LOGS) from exc

    def _said(self, delivery: int) -> str:
        """Return what an operator would look at next: the home is gone before anybody reads why a wait was in vain."""
        looks = [("delivery", "explain", str(delivery)), ("workflow", "list"), ("doctor",), ("ps",)]
        return "\n".join(f"`midsource {' '.join(words)}`:\n{self.run(*words, code=None).out}" for words in looks)

    def end(self) -> None:
        """Stop every process of this home, whatever state it is in, and remove it."""
        with contextlib.suppress(Failed):
            self.run("down", code=None)
        with contextlib.suppress(MidsourceError, KeyError, ValueError):
            os.kill(self.pid("supervisor"), signal.SIGKILL)
        with contextlib.suppress(MidsourceError):
            embedded(load(self.path)).stop_now()
        shutil.rmtree(self.path, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False

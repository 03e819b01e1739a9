"""Start the supervisor of a home in the background, and tell when its processes are ready.

A process is ready when the supervisor says that it runs *and* that very process (by its number) reports itself to its
database: an earlier life's report is still fresh for half a minute after a crash.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from midsource.cli.output import sentence_in
from midsource.cli.session import Session, serving
from midsource.cli.specs import process_specs
from midsource.model.errors import Conflict, Failed, Unhealthy
from midsource.store import processes
from midsource.store.database import Database
from midsource.supervise.control import ControlClient

READY_SECONDS = 60
"""How long `up --detach` waits for every process to report itself."""


def start_detached(session: Session, only: str = "", count: int = 1) -> None:
    """Start a supervisor in the background and wait until its processes are ready. Raises Conflict, Unhealthy, Failed."""
    await_ready(session, launch(session, only, count))


def launch(session: Session, only: str = "", count: int = 1) -> subprocess.Popen[bytes]:
    """Start a supervisor in the background, in a session of its own. Raises Conflict where one runs."""
    if ControlClient(session.home).is_running():
        raise Conflict(f"midsource already runs in {session.home}", "see `midsource ps`; `midsource down` stops it")
    log = _supervisor_log(session)
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    argv = [sys.executable, "-P", "-m", "midsource", "--home", str(session.home), "up"]
    argv += ["--only", only, "--processes", str(count)] if only else []
    with log.open("ab") as file:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, cwd="/"
        )


def await_ready(session: Session, child: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until every process of the supervisor (``child``, if we started it) is ready. Raises Failed, Unhealthy."""
    client, log = ControlClient(session.home), _supervisor_log(session)
    deadline = time.monotonic() + READY_SECONDS
    while missing := _not_ready(session, client):
        if child is not None and child.poll() is not None:
            ended = Unhealthy if child.returncode == Unhealthy.exit_code else Failed
            raise ended(f"the supervisor ended at once: {_last_line(log)}", f"see {log}")
        if time.monotonic() > deadline:
            raise Unhealthy(f"not ready after {READY_SECONDS} s: {', '.join(missing)}", "see `midsource logs NAME`")
        time.sleep(0.1)


def joins_running(session: Session) -> bool:
    """Tell whether this home runs already, waiting for what is just starting.

    Raises Unhealthy naming what does not run, and how to start it.
    """
    client = ControlClient(session.home)
    if not client.is_running():
        return False
    rows = {row["name"]: row["state"] for row in rows_of(client.call("status"))}
    wanted = [spec.name for spec in process_specs(session.config())]
    left_out = [name for name in wanted if name not in rows]
    if left_out:
        raise Unhealthy(
            f"midsource runs in {session.home} without {', '.join(left_out)}",
            "run `midsource down`, then repeat",
        )
    stopped = [name for name in wanted if rows[name] == "stopped"]
    if stopped:
        raise Unhealthy(
            f"midsource runs in {session.home}, but {', '.join(stopped)} {'is' if len(stopped) == 1 else 'are'} stopped",
            f"run `midsource start {' '.join(stopped)}`, then repeat",
        )
    await_ready(session)
    return True


def rows_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the processes in a supervisor's answer."""
    rows: list[dict[str, Any]] = answer["processes"]
    return rows


def silent(session: Session, rows: list[dict[str, Any]]) -> list[str]:
    """Return those of these running processes that do not report themselves (yet) to their database."""
    config = session.config()
    found = [row["name"] for row in rows if row["name"].startswith("sandbox@") and not _sandbox_listens(session, row)]
    with serving(config) as urls:
        for instance in config.instances:
            mine = [row for row in rows if row["name"].partition("@")[2].partition(".")[0] == instance.name]
            mine = [row for row in mine if not row["name"].startswith("sandbox@")]
            if mine:
                with (
                    Database(instance.name, urls(instance), application="cli") as database,
                    database.connection() as conn,
                ):
                    alive = {(row.name, row.pid) for row in processes.listing(conn) if row.alive}
                found += [row["name"] for row in mine if (row["name"], row["pid"]) not in alive]
    return found


def _not_ready(session: Session, client: ControlClient) -> list[str]:
    """Return what is not running yet, or not yet reporting itself to its database."""
    if not client.is_running():
        return ["supervisor"]
    try:
        rows = rows_of(client.call("status"))
    except Unhealthy:
        return ["supervisor"]
    return [row["name"] for row in rows if row["state"] != "running"] or silent(session, rows)


def _sandbox_listens(session: Session, row: dict[str, Any]) -> bool:
    """Tell whether this life of the sandbox has said its ports: a killed one leaves its file behind."""
    try:
        written = (session.home / "sandbox" / "ports.json").stat().st_mtime
    except FileNotFoundError:
        return False
    return bool(time.time() - written <= float(row["up_seconds"]) + 1)


def _supervisor_log(session: Session) -> Path:
    return session.home / "log" / "supervisor.log"


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    return sentence_in(lines[-1])[:300] if lines else "no log"

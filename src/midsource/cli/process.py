"""``python -m midsource.cli.process --home DIR KIND@INSTANCE``: one process in the foreground until SIGTERM; what `up` starts.

It is no command: reading the words of the command line costs each process 8 MiB, which a home pays five times and more.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from midsource.cli.ending import exit_code_of
from midsource.cli.log import set_up_logging
from midsource.cli.session import Urls, serving
from midsource.config import Config, InstanceConfig, forget_libpq_variables, load
from midsource.model.errors import MidsourceError, UserError
from midsource.net.clock import SystemClock
from midsource.store import migrate
from midsource.store.budget import WORKER_POOL
from midsource.store.database import Database


def main() -> None:
    """Run the process that the words name, and exit."""
    forget_libpq_variables()
    parser = argparse.ArgumentParser("midsource.cli.process", description="Run one process in the foreground.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--debug", action="store_true", help="Show the traceback of a failure.")
    parser.add_argument("name", help="As in web@marketing or mta@mid1.2.")
    words = parser.parse_args()
    sys.exit(exit_code_of(lambda: run(words.home.absolute(), words.name), debug=words.debug))


def run(home: Path, name: str) -> int:
    """Run one process until SIGTERM. Raises UserError for a name that there is not, and what ends it early."""
    set_up_logging(name)
    try:
        kind, _, label = name.partition("@")
        config = load(home)
        instance = config.instance(label.partition(".")[0])
        if kind not in RUNNERS:
            raise UserError(f"there is no process kind {kind!r}", f"there are {', '.join(RUNNERS)}")
        _run(kind, config, instance.name, name)
    except MidsourceError as exc:  # also as a line that `logs --level error` finds
        structlog.get_logger().error("ended", action="ended", cause=str(exc), code=exc.code)
        raise
    return 0


def _run(kind: str, config: Config, instance: str, name: str) -> None:
    if kind == "sandbox":
        _sandbox(config)
        return
    with serving(config) as urls:
        resolved = with_databases(config, urls)
        _check(resolved.instance(instance))
        RUNNERS[kind](resolved, resolved.instance(instance), name)


def with_databases(config: Config, urls: Urls) -> Config:
    """Return the configuration with the database URL of every instance filled in."""
    return replace(config, instances=tuple(replace(i, database_url=urls(i)) for i in config.instances))


def _check(instance: InstanceConfig) -> None:
    with Database(instance.name, instance.database_url, application="check") as database:
        migrate.check(database, instance.role, instance.name)


def _web(config: Config, instance: InstanceConfig, name: str) -> None:
    _entry("midsource.web.serve")(config, instance.name, process=name)


def _mta(config: Config, instance: InstanceConfig, name: str) -> None:
    if instance.role != "mid":
        raise UserError(f"{instance.name} is a marketing instance: it never sends", "mta processes belong to a mid")
    _entry("midsource.mid.mta")(config, instance.name, process=name)


def _worker(config: Config, instance: InstanceConfig, name: str) -> None:
    runtime = importlib.import_module("midsource.engine.runtime")
    works = importlib.import_module("midsource.cli.worker").works_of(instance.role)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with Database(instance.name, instance.database_url, application=name, max_connections=WORKER_POOL) as database:
        engine = runtime.Engine(
            database,
            name=name,
            role=instance.role,
            instance=instance.name,
            home=config.home,
            clock=SystemClock(),
            works=works,
        )
        engine.launch()
        ended.wait()
        engine.stop()


def _sandbox(config: Config) -> None:
    _entry("midsource.sandbox.app")(config.home, config.sandbox.smtp_port, config.sandbox.http_port, None)


def _entry(module: str) -> Callable[..., Any]:
    """Import a process's module only in that process: an mta needs no web framework."""
    run: Callable[..., Any] = importlib.import_module(module).run
    return run


RUNNERS: dict[str, Callable[[Config, InstanceConfig, str], None]] = {
    "web": _web,
    "worker": _worker,
    "mta": _mta,
    "sandbox": lambda config, _instance, _name: _sandbox(config),
}

if __name__ == "__main__":
    main()

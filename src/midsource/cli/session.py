"""What a command works with: the home, its configuration, and the database of the instance it acts on.

With the embedded server, opening a database takes part in its use for the length of the block: the server is started if
need be and stays while anybody uses it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from midsource import config as configuration
from midsource.cli.output import err
from midsource.cli.specs import process_specs
from midsource.config import Config, InstanceConfig
from midsource.model.errors import Unhealthy
from midsource.store import budget, migrate, processes
from midsource.store.database import Database
from midsource.supervise.control import ControlClient
from midsource.supervise.postgres import EmbeddedPostgres, PostgresUse

STARTING_SECONDS = 8
"""A worker reports itself two or three seconds after it was started."""
LEAST_CONNECTIONS = 100
"""PostgreSQL's own default."""
ROOM_CONNECTIONS = 10
"""Three that the server reserves for its superuser, a backup, psql, and a second `up --only` by hand."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An instance and its open database."""

    config: Config
    instance: InstanceConfig
    database: Database


@dataclass(frozen=True, slots=True)
class Session:
    """The global options of one command."""

    home: Path
    name: str = ""
    role: str = ""
    debug: bool = False

    def config(self) -> Config:
        """Read the configuration; raises UserError or ConfigError."""
        return configuration.load(self.home)

    def instance(self, role: str = "") -> InstanceConfig:
        """Return the instance the command acts on: ``--instance``, else the only one of ``role`` or ``--role``."""
        return self.config().instance(self.name, role or self.role)

    @contextmanager
    def open(self, role: str = "", *, checked: bool = True) -> Iterator[Opened]:
        """Open the instance's database, refusing one whose schema is not this version's (unless ``checked`` is False)."""
        config = self.config()
        chosen = config.instance(self.name, role or self.role)
        with serving(config) as urls:
            instance = replace(chosen, database_url=urls(chosen))
            with Database(chosen.name, instance.database_url, application=f"cli@{chosen.name}") as database:
                if checked:
                    migrate.check(database, chosen.role, chosen.name)
                yield Opened(config, instance, database)


class Urls:
    """Database URLs of a home's instances: configured ones, or databases of the embedded server (made when missing)."""

    def __init__(self, use: PostgresUse | None) -> None:
        self.use = use

    def __call__(self, instance: InstanceConfig) -> str:
        """Return the URL of the instance's database."""
        if self.use is None:
            return instance.database_url
        self.use.ensure_database(instance.name)
        return self.use.dsn(instance.name)


@contextmanager
def serving(config: Config) -> Iterator[Urls]:
    """Hold the embedded server for the block, where the home has one; progress of a start goes to standard error."""
    if config.postgres.mode == "external":
        yield Urls(None)
        return
    with embedded(config).use() as use:
        yield Urls(use)


def embedded(config: Config) -> EmbeddedPostgres:
    """Return the embedded server of this home; nothing is started."""
    return EmbeddedPostgres(
        config.home,
        postgres_bin=Path(config.postgres.bin) if config.postgres.bin else None,
        runtime_dir=Path(config.postgres.runtime_dir) if config.postgres.runtime_dir else runtime_folder(),
        settings={"max_connections": str(_connections_of(config))},
        progress=lambda sentence: err.print(sentence, markup=False, style="dim"),
    )


def _connections_of(config: Config) -> int:
    """Return what the embedded server allows: what this home's processes may want, and room to look inside beside them."""
    return max(LEAST_CONNECTIONS, budget.needed(spec.name for spec in process_specs(config)) + ROOM_CONNECTIONS)


def runtime_folder() -> Path | None:
    """Return the user's runtime folder, where the system has one."""
    folder = configuration.environment().get("XDG_RUNTIME_DIR", "")
    return Path(folder) if folder else None


def need_worker(opened: Opened) -> None:
    """Raise Unhealthy unless a worker of the instance lives: nothing would carry out what is asked.

    Where the home runs, one that is just starting is waited for.
    """
    supervisor, deadline = ControlClient(opened.config.home), time.monotonic() + STARTING_SECONDS
    with opened.database.connection() as conn:
        while not processes.any_alive(conn, "worker"):
            if time.monotonic() > deadline or not supervisor.is_running():
                raise Unhealthy(*processes.no_worker(opened.instance.name))
            time.sleep(0.1)

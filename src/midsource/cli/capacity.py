"""Check that the processes of a home fit into the connections that their servers allow, before any is started."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from midsource.cli.session import Urls
from midsource.config import Config
from midsource.model.errors import ConfigError
from midsource.store import budget
from midsource.store.database import Database


@dataclass(frozen=True, slots=True)
class Server:
    """One PostgreSQL server, told apart from others by its start, and what it allows ordinary users."""

    identity: str
    allowed: int
    reserved: int


def check_connections(config: Config, urls: Urls, names: Sequence[str]) -> None:
    """Raise ConfigError, with the numbers, where processes ``names`` may want more connections than a server has."""
    wanted: dict[Server, list[str]] = defaultdict(list)
    for instance in config.instances:
        mine = [name for name in names if name.partition("@")[2].partition(".")[0] == instance.name]
        with Database(instance.name, urls(instance), application="up") as database:
            wanted[_server(database)] += mine
    problems = [problem for server, mine in wanted.items() if (problem := _problem(server, mine))]
    if problems:
        setting = "stop everything with `midsource down`, wait ten seconds and start again"
        if urls.use is None:
            setting = "raise max_connections of that server, or run fewer processes (workers, mtas)"
        raise ConfigError(problems, setting)


def _problem(server: Server, names: list[str]) -> str:
    needed = budget.needed(names)
    if needed <= server.allowed:
        return ""
    each = ", ".join(f"{name} {budget.of(name)}" for name in names if budget.of(name))
    return (
        f"connections: {each} and commands {budget.COMMANDS} may want {needed} together, their PostgreSQL allows "
        f"{server.allowed} (max_connections {server.allowed + server.reserved}, {server.reserved} of them reserved)"
    )


def _server(database: Database) -> Server:
    with database.connection() as conn:
        row = conn.execute(
            "select pg_postmaster_start_time()::text || ' ' || coalesce(inet_server_port(), 0), "
            "current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int "
            "+ coalesce(current_setting('reserved_connections', true), '0')::int"
        ).fetchone()
    assert row is not None
    return Server(identity=row[0], allowed=row[1] - row[2], reserved=row[2])

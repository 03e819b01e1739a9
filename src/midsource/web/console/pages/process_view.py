"""What the page of processes shows: rows of the database and of the supervisor, put together by name. Bounded by both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from midsource.model.errors import Failed
from midsource.store import budget, processes
from midsource.store.database import Connection
from midsource.store.processes import ProcessRow

MAX_USERS = 100
"""Names under which connections are held that are shown."""


class Reported(msgspec.Struct, frozen=True):
    """A process as the supervisor reports it (supervise/children.py)."""

    name: str
    state: str
    pid: int
    up_seconds: float
    restarts: int
    memory_bytes: int
    last_end: str
    next_start_seconds: float


@dataclass(frozen=True, slots=True)
class Supervised:
    """What the supervisor of this home says; ``problem``: why it could not be asked, '' where it answered."""

    rows: Sequence[Reported]
    problem: str = ""

    @classmethod
    def parse(cls, answer: Mapping[str, object]) -> Supervised:
        """Read its answer. Raises Failed where it is another version's."""
        try:
            return cls(msgspec.convert(answer["processes"], tuple[Reported, ...]))
        except (KeyError, msgspec.ValidationError) as exc:
            raise Failed(
                "the supervisor answers in another form", "restart it: `midsource down`, `midsource up`"
            ) from exc


@dataclass(frozen=True, slots=True)
class Row:
    """One process: ``reported`` None where no supervisor of this home runs it, ``beat`` None where it tells another database."""

    name: str
    reported: Reported | None
    beat: ProcessRow | None
    connections: int | None
    may_hold: int

    @property
    def instance(self) -> str:
        """The instance it belongs to."""
        return self.name.partition("@")[2].partition(".")[0]

    @property
    def state(self) -> str:
        """running, silent (no sign of life), stopped (by an operator), waiting (for its next start)."""
        if self.reported is not None and self.reported.state != "running":
            return self.reported.state
        if self.beat is not None and not self.beat.alive:
            return "silent"
        return "running"


@dataclass(frozen=True, slots=True)
class Board:
    """Every process by instance, and who holds connections of this instance's database."""

    rows: Sequence[Row]
    problem: str
    used: Sequence[tuple[str, int]]
    allowed: int

    @property
    def instances(self) -> list[tuple[str, list[Row]]]:
        """The rows of each instance."""
        names = list(dict.fromkeys(row.instance for row in self.rows))
        return [(name, [row for row in self.rows if row.instance == name]) for name in names]

    @property
    def total(self) -> int:
        """Connections held of this instance's database."""
        return sum(count for _, count in self.used)


def board(conn: Connection, *, instance: str, supervised: Supervised) -> Board:
    """Read what reports itself to this instance's database and put the supervisor's rows beside it."""
    used = dict(_used(conn))
    beats = {row.name: row for row in sorted(processes.listing(conn), key=lambda row: row.beat_at)}
    reported = {row.name: row for row in supervised.rows}
    names = sorted(
        beats.keys() | reported.keys(), key=lambda name: (_instance(name) != instance, _instance(name), name)
    )
    rows = [
        Row(name, reported.get(name), beats.get(name), _held(used, name, instance), budget.of(name)) for name in names
    ]
    allowed = conn.execute("select current_setting('max_connections')::int").fetchone()
    assert allowed is not None
    return Board(rows, supervised.problem, list(used.items()), allowed[0])


def age(row: Row, now: datetime) -> float | None:
    """Return for how many seconds a process has been up."""
    if row.reported is not None:
        return row.reported.up_seconds if row.reported.state == "running" else None
    if row.beat is None or not row.beat.alive:
        return None
    return max(0.0, (now - row.beat.started_at).total_seconds())


def _instance(name: str) -> str:
    return name.partition("@")[2].partition(".")[0]


def _used(conn: Connection) -> Sequence[tuple[str, int]]:
    rows = conn.execute(
        # What a process does for one run bears the run's number after its own name.
        "select split_part(application_name, ' ', 1), count(*)::int from pg_stat_activity where datname = current_database() "
        "group by 1 order by 2 desc, 1 limit %s",
        (MAX_USERS,),
    ).fetchall()
    return [(row[0], row[1]) for row in rows]


def _held(used: Mapping[str, int], name: str, instance: str) -> int | None:
    """Return the connections a process holds of this instance's database; None for one of another instance."""
    if _instance(name) != instance:
        return None
    pages = used.get(f"console@{instance}", 0) if name == f"web@{instance}" else 0
    return used.get(name, 0) + pages

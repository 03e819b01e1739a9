"""What is known of a database's upkeep, as values: measures of tables, indexes and server, and what can be done.

Sizes are bytes, times aware datetimes, ages of transaction ids transactions. None means *not known*, never zero: what the
role may not see, or what was never analysed, is said and not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Act(StrEnum):
    """What maintenance does to a relation. Each takes SHARE UPDATE EXCLUSIVE at most: who reads and writes goes on."""

    ANALYZE = "analyze"
    VACUUM = "vacuum"
    VACUUM_ANALYZE = "vacuum analyze"
    REINDEX = "reindex"
    DROP = "drop index"


class Outcome(StrEnum):
    """What became of an action. ASKED and RUNNING are still to end."""

    ASKED = "asked"
    ADVISED = "advised"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    CUT = "cut"


class Level(StrEnum):
    """How pressing a remark is, worst first. NOW makes `maintenance status` exit 3."""

    NOW = "now"
    SOON = "soon"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Shape:
    """What the planner's statistics say of a row or of an index entry.

    ``width``: average bytes of its values. ``distinct``: different entries; None where that is not known.
    """

    width: float
    columns: int
    has_nulls: bool
    fillfactor: int
    distinct: float | None = None


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """An index as our last rebuild left it: the best knowledge of how small it can be."""

    at: datetime
    bytes: int
    rows: float


@dataclass(frozen=True, slots=True)
class TableMeasure:
    """One table, or one partition; a partitioned parent has no bytes of its own.

    ``rows``: the planner's estimate, -1 where the table was never analysed. ``dead``, ``modified`` (since the last
    analysis): as the server counts them. ``free``: bytes that no live row needs, by pgstattuple. Thresholds: the rows at
    which autovacuum would act.
    """

    name: str
    parent: str = ""
    is_partitioned: bool = False
    is_mine: bool = True
    bytes: int = 0
    toast_bytes: int = 0
    index_bytes: int = 0
    rows: float = -1
    live: int = 0
    dead: int = 0
    modified: int = 0
    shape: Shape | None = None
    free: int | None = None
    vacuumed_at: datetime | None = None
    analyzed_at: datetime | None = None
    has_autovacuum: bool = True
    vacuum_threshold: float = 50
    analyze_threshold: float = 50
    sequential_scans: int = 0
    sequential_rows: int = 0
    index_scans: int = 0
    transaction_age: int = 0
    multixact_age: int = 0


@dataclass(frozen=True, slots=True)
class IndexMeasure:
    """One index. ``enforces``: it is unique or belongs to a constraint. ``density``: filled share of its leaves, by pgstattuple."""

    name: str
    table: str
    bytes: int
    method: str = "btree"
    enforces: bool = False
    is_valid: bool = True
    is_mine: bool = True
    rows: float = -1
    shape: Shape | None = None
    density: float | None = None
    scans: int = 0
    scanned_at: datetime | None = None
    rebuilt: Rebuilt | None = None


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers that run out: a sequence, or an integer column by the largest value the statistics know."""

    name: str
    used: int
    most: int
    cycles: bool = False

    @property
    def share(self) -> float:
        """Return the used part, 0 to 1."""
        return min(1.0, self.used / self.most) if self.most > 0 else 1.0


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """A transaction that is open for long. ``seconds``: since it began. ``doing``: 'idle in transaction', 'active', 'prepared' …"""

    pid: int
    who: str
    doing: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot. ``held_bytes``: WAL that the server keeps for it."""

    name: str
    is_active: bool
    held_bytes: int | None
    status: str


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk under the server's data."""

    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Server:
    """What concerns the whole database or server.

    ``stats_since``: when the counters of use began; None: they were never reset, so they are as old as the database.
    """

    version: int
    database_bytes: int
    connections: int
    connections_allowed: int
    connections_budget: int
    transaction_age: int
    multixact_age: int
    freeze_age: int
    autovacuum_on: bool
    stats_since: datetime | None = None
    numbers: tuple[Numbers, ...] = ()
    transactions: tuple[OpenTransaction, ...] = ()
    slots: tuple[Slot, ...] = ()
    disk: Disk | None = None


@dataclass(frozen=True, slots=True)
class Measures:
    """Everything that was measured at one moment. ``unseen``: sentences about what this role may not see."""

    at: datetime
    server: Server
    tables: tuple[TableMeasure, ...] = ()
    indexes: tuple[IndexMeasure, ...] = ()
    unseen: tuple[str, ...] = ()
    has_pgstattuple: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One action of a plan. ``why_not``: why it is not done now; '' where nothing forbids it.

    ``truncates``: pages at the end go back to the disk (takes ACCESS EXCLUSIVE for a moment: past partitions only).
    ``only``: a parent's own statistics, without those of its partitions.
    """

    act: Act
    relation: str
    table: str
    reason: str
    read_bytes: int
    write_bytes: int
    gain_bytes: int = 0
    is_urgent: bool = False
    truncates: bool = False
    freezes: bool = False
    only: bool = False
    why_not: str = ""

    @property
    def cost_bytes(self) -> int:
        """Return the bytes it reads and writes."""
        return self.read_bytes + self.write_bytes


@dataclass(frozen=True, slots=True)
class Remark:
    """One line of `maintenance status`: what is wrong with ``subject``, what that costs, what is or can be done.

    ``kind``: 'dead rows', 'statistics', 'index bloat', 'table bloat', 'unused index' … The sentences have no final dot.
    """

    level: Level
    kind: str
    subject: str
    wrong: str
    costs: str
    remedy: str
    weight: float = 0.0
    """Orders remarks of one level: bytes or shares, the worst first."""

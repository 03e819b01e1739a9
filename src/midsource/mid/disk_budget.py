"""The disk budget of a mid: beyond it no new parts are taken (507), so that results always find room. None is dropped early.

The option `NmsServer_DiskBudget` says how large the database may grow; 0, the default, leaves that to the disk. Parts that
are here already are answered as ever, and what was taken is sent: only more work is refused, until `cleanup` made room.
"""

from __future__ import annotations

from dataclasses import dataclass

from midsource.mid.options import TABLE
from midsource.model.errors import Failed
from midsource.model.options import DISK_BUDGET
from midsource.store.database import Connection, scalar

GB = 10**9


class DiskBudgetSpent(Failed):
    """The database of this mid is as large as its operator allows; the same part is taken once there is room."""

    code = "MS-323"
    http_status = 507


@dataclass(frozen=True, slots=True)
class DiskBudget:
    """What is used of what is allowed, in bytes."""

    used: int
    allowed: int

    @property
    def share(self) -> float:
        """Used part of what is allowed; 1 or more: spent."""
        return self.used / self.allowed


def read(conn: Connection) -> DiskBudget | None:
    """Return the budget, None where none is set: measuring asks the file system about every table and partition."""
    allowed = TABLE.integer(conn, DISK_BUDGET) * GB
    if allowed == 0:
        return None
    return DiskBudget(scalar(conn, "select pg_database_size(current_database())"), allowed)


def require(conn: Connection) -> None:
    """Raise DiskBudgetSpent where the budget is spent."""
    budget = read(conn)
    if budget is not None and budget.share >= 1:
        raise DiskBudgetSpent(
            f"this mid's database has {budget.used / GB:.1f} GB, its budget is {budget.allowed / GB:.0f} GB",
            f"it takes parts again when `midsource cleanup` made room on the mid, or {DISK_BUDGET} is raised there",
        )

"""Partitions that are made without a lock on their parent; why steps of cleanup failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Replace how partitions are made, and add the column."""
    connection: Any = op.get_bind().connection.driver_connection
    script = Path(__file__).parents[2] / "common" / "0007_upkeep.sql"
    connection.execute(script.read_text(encoding="utf-8"))

"""Partitions that are made without a lock on their parent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make partitions beside their parent and attach them."""
    connection: Any = op.get_bind().connection.driver_connection
    script = Path(__file__).parents[2] / "common" / "0007_partitions.sql"
    connection.execute(script.read_text(encoding="utf-8"))

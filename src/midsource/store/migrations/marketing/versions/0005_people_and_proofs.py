"""Searching people, seed addresses and proofs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add indexes for searching, the table of seed addresses and what makes a delivery a proof."""
    connection: Any = op.get_bind().connection.driver_connection
    connection.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))

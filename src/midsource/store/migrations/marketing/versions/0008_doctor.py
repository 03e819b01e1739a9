"""Findings, what was done about them, supervisors and what they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create what every instance has of them."""
    connection: Any = op.get_bind().connection.driver_connection
    script = Path(__file__).parents[2] / "common" / "0004_doctor.sql"
    connection.execute(script.read_text(encoding="utf-8"))

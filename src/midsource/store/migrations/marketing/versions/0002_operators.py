"""Operators, sessions, API keys and the audit trail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create what every instance has of them."""
    connection: Any = op.get_bind().connection.driver_connection
    script = Path(__file__).parents[2] / "common" / "0002_operators.sql"
    connection.execute(script.read_text(encoding="utf-8"))

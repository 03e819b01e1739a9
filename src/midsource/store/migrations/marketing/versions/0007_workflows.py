"""Schedules with a validity, and who holds a technical workflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add what every instance has of them."""
    connection: Any = op.get_bind().connection.driver_connection
    script = Path(__file__).parents[2] / "common" / "0003_workflows.sql"
    connection.execute(script.read_text(encoding="utf-8"))

"""What maintenance did and advises, and the daily samples of sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create what every instance has of them."""
    connection: Any = op.get_bind().connection.driver_connection
    script = Path(__file__).parents[2] / "common" / "0006_maintenance.sql"
    connection.execute(script.read_text(encoding="utf-8"))

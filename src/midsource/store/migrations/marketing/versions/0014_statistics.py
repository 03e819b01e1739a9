"""Statistics by domain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add their tables."""
    connection: Any = op.get_bind().connection.driver_connection
    connection.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))

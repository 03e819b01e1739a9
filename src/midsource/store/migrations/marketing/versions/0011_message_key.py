"""A key for the Message-IDs of each delivery, so that no row of a feed or of the log has to carry one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the column; deliveries that exist keep none."""
    connection: Any = op.get_bind().connection.driver_connection
    connection.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))

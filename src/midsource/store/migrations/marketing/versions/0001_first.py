"""First schema of the marketing role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0001"
down_revision = None

HERE = Path(__file__).parent


def upgrade() -> None:
    """Create what every instance has, then what this role has."""
    # The driver's own connection: SQLAlchemy would read the % of format() as a parameter.
    connection: Any = op.get_bind().connection.driver_connection
    for script in (HERE.parents[1] / "common" / "0001_common.sql", HERE / "0001_first.sql"):
        connection.execute(script.read_text(encoding="utf-8"))

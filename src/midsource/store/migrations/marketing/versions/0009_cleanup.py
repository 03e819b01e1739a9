"""What cleanup did, what it dropped, and what a mid no longer had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the tables of cleanup, then those of this role."""
    connection: Any = op.get_bind().connection.driver_connection
    here = Path(__file__)
    for script in (here.parents[2] / "common" / "0005_cleanup.sql", here.with_suffix(".sql")):
        connection.execute(script.read_text(encoding="utf-8"))

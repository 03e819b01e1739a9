"""Room on the pages of the delivery log for the one update that each row gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Let months have half-empty pages, those that exist too; rows already written stay where they are."""
    connection: Any = op.get_bind().connection.driver_connection
    connection.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))

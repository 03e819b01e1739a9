"""What cleanup did, what it dropped, and up to where results are forgotten; an index that finds a day's batches.

Batches may be many and are written all the time: the index is made concurrently. What a cut attempt left half made is
removed first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the tables of cleanup, then those of this role, then the index."""
    connection: Any = op.get_bind().connection.driver_connection
    here = Path(__file__)
    for script in (here.parents[2] / "common" / "0005_cleanup.sql", here.with_suffix(".sql")):
        connection.execute(script.read_text(encoding="utf-8"))
    with op.get_context().autocommit_block():
        connection = op.get_bind().connection.driver_connection
        broken = connection.execute(
            "select 1 from pg_index where indexrelid = to_regclass('feed_batch_day') and not indisvalid"
        ).fetchone()
        if broken is not None:
            connection.execute("drop index concurrently feed_batch_day")
        connection.execute("create index concurrently if not exists feed_batch_day on feed_batch (day, account_id)")

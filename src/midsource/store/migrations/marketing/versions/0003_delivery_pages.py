"""What the pages of deliveries read: samples of the counters, and an index that finds rare rows of the delivery log.

The log may be large and in use: the index is made partition by partition, concurrently, and then attached to the
parent's. Months made meanwhile have it from the parent. A lock that is not had in two seconds ends the attempt; the
next one (store/upgrading.py) goes on where this one was, after removing what a cut attempt left half made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op
from psycopg import sql

revision = "0003"
down_revision = "0002"

INDEX = "broad_log_found"
_COLUMNS = sql.SQL(
    "using brin (delivery_id, id, state int2_minmax_multi_ops, reason int2_minmax_multi_ops) with (pages_per_range = 4)"
)
"""Four pages are some 200 rows. A block-range index costs an update nothing that a B-tree on a changing column would:
updates stay on their page (HOT), and a million rows have 1.5 MB of it."""


def upgrade() -> None:
    """Make the table, then the index."""
    connection: Any = op.get_bind().connection.driver_connection
    connection.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
    connection.execute(
        sql.SQL("create index if not exists {} on only broad_log {}").format(sql.Identifier(INDEX), _COLUMNS)
    )
    with op.get_context().autocommit_block():
        connection = op.get_bind().connection.driver_connection
        partitions = connection.execute(
            "select inhrelid::regclass::text from pg_inherits where inhparent = 'broad_log'::regclass"
        ).fetchall()
        for (partition,) in partitions:
            _attach(connection, partition)


def _attach(connection: Any, partition: str) -> None:
    parent, index = sql.Identifier(INDEX), sql.Identifier(f"{partition}_found")
    state = connection.execute(
        "select i.indisvalid, exists (select from pg_inherits h where h.inhrelid = i.indexrelid) "
        "from pg_index i where i.indexrelid = to_regclass(%s)",
        (f"{partition}_found",),
    ).fetchone()
    if state is not None and state[1]:
        return
    if state is not None and not state[0]:
        connection.execute(sql.SQL("drop index concurrently {}").format(index))
        state = None
    if state is None:
        connection.execute(
            sql.SQL("create index concurrently {} on {} {}").format(index, sql.Identifier(partition), _COLUMNS)
        )
    connection.execute(sql.SQL("alter index {} attach partition {}").format(parent, index))

"""How much a statement reads: bounds of pages are proven by rows read, not by the clock."""

from __future__ import annotations

from midsource.store.database import Connection, scalar


def rows_read(conn: Connection, table: str) -> int:
    """Return how many rows of a partitioned table this connection has read and not yet told the statistics: compare two of them."""
    statement = (
        "select coalesce(sum(seq_tup_read), 0) + coalesce(sum(idx_tup_fetch), 0) from pg_stat_xact_user_tables "
        "where relname ~ %s"
    )
    return int(scalar(conn, statement, (f"^{table}_2",)))

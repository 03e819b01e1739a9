"""The three looks of ``GET deliveries/{id}/reconcile``, chosen by the query.

Nothing: the summary (``mend=1``: the mid corrects its counters). ``first`` and ``count``: sums of blocks. ``rows=3,17``: the
messages of these blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeAlias

from midsource.mid import reconcile
from midsource.model.errors import UserError
from midsource.store.database import Database
from midsource.wire.blocks import MAX_BLOCKS, BlockPage, LedgerPage, LedgerSummary
from midsource.wire.statistics import Statistics

Look: TypeAlias = Callable[[Database, int, int, datetime], LedgerSummary | BlockPage | LedgerPage | Statistics]
"""Takes database, account, delivery and time."""


def wanted(query: Mapping[str, str]) -> Look:
    """Return the look that ``query`` asks for. Raises UserError for one that cannot be read."""
    try:
        if "rows" in query:
            chosen = [_number(text) for text in query["rows"].split(",")]
            return lambda db, account, delivery, now: reconcile.rows(db, account, delivery, chosen, now)
        if "first" in query or "count" in query:
            first, count = _number(query.get("first", "0")), _number(query.get("count", str(MAX_BLOCKS)))
            return lambda db, account, delivery, now: reconcile.blocks(db, account, delivery, first, count, now)
    except ValueError as exc:
        raise UserError(f"the query cannot be read ({exc})", "first, count and rows are numbers of blocks") from exc
    mend = query.get("mend") == "1"
    return lambda db, account, delivery, now: reconcile.summary(db, account, delivery, now, mend=mend)


def _number(text: str) -> int:
    number = int(text[:20])
    if not 0 <= number < 1 << 50:
        raise ValueError(f"{text[:20]} is no block")
    return number

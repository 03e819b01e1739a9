"""A delivery's log as CSV: pages of rows become pieces of text, so a log of any length takes the memory of one page.

Each page is a query of its own: nothing is held open while a slow reader takes its time, and a row that changes meanwhile
is told as it is when its page is read. Cells that a spreadsheet would run as a formula get an apostrophe in front. The
words are the product's own (English), the same as `delivery logs --json` prints.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from midsource.marketing import delivery_log
from midsource.marketing.cells import harmless
from midsource.model.message import MessageState
from midsource.store.database import Database

COLUMNS = ("id", "email", "status", "state", "reason", "attempts", "event_at", "reply", "message_id")


def pieces(
    database: Database, delivery_id: int, *, state: MessageState | None = None, reason: int | None = None
) -> Iterator[str]:
    """Yield the header, then the rows of one state and reason if they are given, some thousand a piece."""
    yield _lines([COLUMNS])
    rows = (
        delivery_log.as_dict(row) for row in delivery_log.entries(database, delivery_id, state=state, reason=reason)
    )
    while page := [[harmless(str(row[name])) for name in COLUMNS] for row in islice(rows, delivery_log.PAGE_ROWS)]:
        yield _lines(page)


def _lines(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()

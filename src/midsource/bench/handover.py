"""*hand-over*: stored parts of a million recipients → ledger rows on the mid, over HTTP, both sides compared at the end.

Beside it: the bare COPY of the same rows into a table like the ledger, without HTTP, without reading a line of them.
"""

from __future__ import annotations

import time

from midsource.bench import prepare
from midsource.bench.pair import PHASE_SECONDS, Pair, the_pair
from midsource.bench.row import Goal, Row
from midsource.bench.stage import Bench
from midsource.store.database import Connection

NAME = "hand-over"
WHAT = "stored parts → ledger rows on the mid, over HTTP"
TARGET = (Goal("a million recipients", 20, "s", at_most=True),)
BARE = "bare COPY of the ledger rows"
BARE_ROWS = 100_000
"""Rows of the bare COPY: a second or so, and 60 MB in memory."""


def run(bench: Bench) -> Row:
    """Read what the campaigns took, and copy rows bare."""
    _, handed, done = prepare.campaigns(bench)
    for turn in range(bench.runs):
        bench.say(f"{NAME}: bare COPY, run {turn + 1} of {bench.runs}")
        bare = bare_copy(the_pair(bench), done[turn][0])
        handed.against(BARE, "s", bare, bare / handed["a million recipients"].values[turn])
    return Row(
        NAME, WHAT, handed["a million recipients"], TARGET, (handed.beside(BARE),), handed.several(prepare.SPENT),
        prepare.setting(bench), scaled=bench.scale < 1,
    )  # fmt: skip


def bare_copy(pair: Pair, number: int) -> float:
    """Return the seconds in which COPY alone takes a million rows of this delivery into a table like the ledger."""
    with pair.mid.transaction(statement_seconds=PHASE_SECONDS) as conn:
        conn.execute("create table bare_message (like message including all)")
        lines, rows = _rows(conn, number)
        began = time.perf_counter()
        with conn.cursor() as cursor, cursor.copy("copy bare_message from stdin") as copy:
            copy.write(lines)
        seconds = time.perf_counter() - began
        conn.execute("drop table bare_message")
    return seconds / rows * 1_000_000


def _rows(conn: Connection, number: int) -> tuple[bytes, int]:
    """Return rows of a delivery in COPY's own text form, and how many."""
    statement = "copy (select * from message where delivery_id = %s order by id limit %s) to stdout"
    with conn.cursor() as cursor, cursor.copy(statement, (number, BARE_ROWS)) as copy:
        lines = b"".join(copy)
    return lines, lines.count(b"\n")

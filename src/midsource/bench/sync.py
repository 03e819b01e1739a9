"""*sync*: a million outcomes of the mid → the marketing instance's delivery log, by the workflow, over HTTP.

The outcomes are written as the mta's settling writes them, 2 000 a transaction, in the order in which destinations
are sent to. Beside it: COPY and one UPDATE of as many log rows, 20 000 at a time, with no link and nothing counted.
"""

from __future__ import annotations

import time

import msgspec

from midsource.bench import prepare
from midsource.bench.midhalf import SIGNED
from midsource.bench.pair import PHASE_SECONDS, Pair, the_pair
from midsource.bench.row import Goal, Row, Runs
from midsource.bench.stage import Bench
from midsource.mid import feed, ledger
from midsource.mid.ledger import OutcomeRecord
from midsource.model.message import MessageEvent
from midsource.store.database import scalar
from midsource.wire.identity import DERIVED
from midsource.wire.rows import compress
from midsource.wire.schema import MAX_PAGE_ROWS

NAME = "sync"
WHAT = "ledger changes → marketing delivery log, idempotent, over HTTP"
TARGET = (
    Goal("a million changes", 7, "s", at_most=True),
    Goal("memory of the sync", 100, "MiB", at_most=True),
    Goal("on the wire", 12, "MB a million", at_most=True),
)
BARE = "bare COPY and UPDATE of the log rows"
SETTLED = 2_000
"""Outcomes of one transaction of a busy mta."""
_BARE_TABLE = """
create table bare_log (like broad_log including all);
alter table bare_log set (fillfactor = 40);
create temp table bare_page (delivery_id bigint, id bigint, message_id text) on commit drop
"""


def run(bench: Bench) -> Row:
    """Read what bringing back the outcomes of each campaign's delivery took."""
    runs = measured(bench)
    return Row(
        NAME, WHAT, runs["a million changes"], TARGET, (runs.beside(BARE),),
        runs.several(("memory of the sync", "on the wire", *prepare.SPENT)), prepare.setting(bench),
        scaled=bench.scale < 1,
    )  # fmt: skip


def measured(bench: Bench) -> Runs:
    """Sync the outcomes of each campaign's delivery, once for all rows."""

    def measure() -> Runs:
        pair, runs = the_pair(bench), Runs()
        for turn, (number, rows) in enumerate(prepare.campaigns(bench)[2], 1):
            bench.say(f"{NAME}: run {turn} of {bench.runs}, {rows} outcomes happen")
            send_all(pair, number)
            bare = bare_update(pair, number, rows)
            bench.say(f"{NAME}: run {turn} of {bench.runs}, reading them")
            cursor = _cursor(pair)
            phase = pair.pull_logs(rows)
            prepare.note(runs, "a million changes", phase)
            runs.add("memory of the sync", "MiB", max(phase.worker_mib, phase.web_mib))
            runs.against(BARE, "s", bare, bare / phase.million_seconds)
            runs.add("on the wire", "MB a million", feed_bytes(pair, cursor) / rows)
        return runs

    return bench.once("syncs", measure)


def send_all(pair: Pair, number: int) -> None:
    """Let every message of a delivery have been sent, in the ledger."""
    now = pair.bench.clock.now()
    with pair.mid.connection() as conn:
        found = conn.execute(
            "select id from message where delivery_id = %s and state = 6 "
            "order by (row_number() over (partition by domain order by id)) / 500, domain, id",
            (number,),
        ).fetchall()
    ids = [id_ for (id_,) in found]
    for at in range(0, len(ids), SETTLED):
        with pair.mid.transaction() as conn:
            ledger.record_outcomes(
                conn, pair.mid_account, [_sent(pair, number, id_) for id_ in ids[at : at + SETTLED]], now
            )
    # Autovacuum comes within a minute of such a wave; whether it falls into a measurement must not be chance.
    for database, tables in ((pair.mid, "message, outcome, feed_batch"), (pair.marketing, "broad_log, upload_part")):
        with database.connection() as conn:
            conn.execute("set statement_timeout = 0")
            conn.execute(f"vacuum analyze {tables}")
            conn.execute("reset statement_timeout")


def bare_update(pair: Pair, number: int, rows: int) -> float:
    """Return the seconds in which COPY and UPDATE alone change a million log rows, 20 000 at a time."""
    with pair.marketing.transaction(statement_seconds=PHASE_SECONDS) as conn:
        conn.execute(_BARE_TABLE)
        conn.execute("insert into bare_log select * from broad_log where delivery_id = %s", (number,))
        conn.execute("analyze bare_log")
        for way in ("hashjoin", "mergejoin", "seqscan"):  # row by row, or each page would read the whole table
            conn.execute(f"set local enable_{way} = off")
        lines = [f"{number}\t{n}\t<{n:024x}@{SIGNED}>\n" for n in range(1, rows + 1)]
        began = time.perf_counter()
        for at in range(0, rows, MAX_PAGE_ROWS):
            with conn.cursor() as cursor, cursor.copy("copy bare_page from stdin") as copy:
                copy.write("".join(lines[at : at + MAX_PAGE_ROWS]))
            conn.execute(
                "update bare_log b set state = 1, revision = 2, reply = '250 2.0.0 Ok', message_id = p.message_id, event_at = now() "
                "from (select * from bare_page order by id) p where b.delivery_id = p.delivery_id and b.id = p.id"
            )
            conn.execute("truncate bare_page")
        seconds = time.perf_counter() - began
        conn.execute("drop table bare_log")
    return seconds / rows * 1_000_000


def feed_bytes(pair: Pair, cursor: str) -> int:
    """Read the feed after ``cursor`` again to its end, as the link serves it; return the bytes of the compressed pages."""
    size, more = 0, True
    while more:
        page = feed.read_page(pair.mid, pair.mid_account, feed.Ask("logs", after=cursor), pair.bench.clock.now())
        size += len(compress(msgspec.json.encode(page.head) + b"\n" + page.lines))
        cursor, more = str(page.cursor), page.head.more
    return size


def _cursor(pair: Pair) -> str:
    """Return how far the marketing instance has read."""
    with pair.marketing.connection() as conn:
        return str(scalar(conn, "select cursor from pointer where stream = 'logs' and lane = 'backlog'"))


def _sent(pair: Pair, number: int, id_: int) -> OutcomeRecord:
    return OutcomeRecord(
        number, id_, MessageEvent.ACCEPTED, pair.bench.clock.now(), reply="250 2.0.0 Ok", stage="end of data",
        message_id=DERIVED, process="mta-mid1-0123456789ab",
    )  # fmt: skip

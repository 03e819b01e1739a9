"""*prepare*: a delivery to a million people, from the operator's word to stored parts, by a real worker.

Checks, one statement that writes a log row for everybody with the reason of each exclusion, people read page by page,
parts cut, hashed, compressed, stored. Beside it: one bare `INSERT … SELECT` of as many log rows in the same database.
"""

from __future__ import annotations

import time

from midsource.bench.pair import PHASE_SECONDS, Pair, Phase, the_pair
from midsource.bench.row import Goal, Row, Runs
from midsource.bench.stage import Bench

NAME = "prepare"
WHAT = "targets, exclusions with reasons, log rows, parts cut and stored"
PEOPLE = 1_000_000
BARE = "bare INSERT … SELECT of the log rows"
TARGET = (Goal("a million targets", 60, "s", at_most=True),)
_BARE = """
insert into bare_log (delivery_id, id, recipient_id, email, domain, state, event_at)
select 1, id, id, coalesce(email, ''), coalesce(domain, ''), 6, now() from recipient
"""


def run(bench: Bench) -> Row:
    """Read what the campaigns took."""
    runs = campaigns(bench)[0]
    return Row(
        NAME, WHAT, runs["a million targets"], TARGET, (runs.beside(BARE),), runs.several(SPENT), setting(bench),
        scaled=bench.scale < 1,
    )  # fmt: skip


SPENT = ("worker CPU", "web CPU", "PostgreSQL CPU", "worker memory", "web memory")


def campaigns(bench: Bench) -> tuple[Runs, Runs, list[tuple[int, int]]]:
    """Prepare and hand over ``bench.runs`` deliveries, once for all rows; return both phases, and (delivery, messages)."""

    def measure() -> tuple[Runs, Runs, list[tuple[int, int]]]:
        pair, prepared, handed = the_pair(bench), Runs(), Runs()
        bench.say(f"{NAME}: inventing {bench.count(PEOPLE)} people")
        pair.add_people(bench.count(PEOPLE))
        done = []
        for turn in range(bench.runs):
            bench.say(f"{NAME} and hand-over: run {turn + 1} of {bench.runs}, {pair.people} people")
            bare = bare_insert(pair)
            number, first, second = pair.campaign()
            note(prepared, "a million targets", first)
            prepared.against(BARE, "s", bare, bare / first.million_seconds)
            note(handed, "a million recipients", second)
            done.append((number, second.rows))
        return prepared, handed, done

    return bench.once("campaigns", measure)


def note(runs: Runs, name: str, phase: Phase) -> None:
    """Keep what a phase took, for a million rows or for a thousand."""
    thousands = phase.rows / 1_000
    runs.add(name, "s", phase.million_seconds)
    runs.add("worker CPU", "s per 1 000", phase.worker_cpu / thousands)
    runs.add("web CPU", "s per 1 000", phase.web_cpu / thousands)
    runs.add("PostgreSQL CPU", "s per 1 000", phase.database_cpu / thousands)
    runs.add("worker memory", "MiB", phase.worker_mib)
    runs.add("web memory", "MiB", phase.web_mib)


def bare_insert(pair: Pair) -> float:
    """Return the seconds in which a bare statement writes a million log rows, with the log's columns and indexes."""
    with pair.marketing.transaction(statement_seconds=PHASE_SECONDS) as conn:
        conn.execute("create table bare_log (like broad_log including all)")
        began = time.perf_counter()
        rows = conn.execute(_BARE).rowcount
        seconds = time.perf_counter() - began
        conn.execute("drop table bare_log")
    return seconds / rows * 1_000_000


def setting(bench: Bench) -> str:
    """Say what ran."""
    return f"one worker, one web process, one PostgreSQL, {the_pair(bench).people} people, {bench.runs} runs"

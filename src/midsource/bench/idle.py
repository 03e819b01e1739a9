"""*idle*: both instances with every process that `up` starts, and nothing to do: CPU, transactions, memory.

From /proc and `pg_stat_database`, over a minute. PostgreSQL's own CPU and memory are apart: a server belongs to whoever
runs it. Memory is what the processes have resident, pages they share counted for each, as `ps` shows it.
"""

from __future__ import annotations

import time

from midsource.bench import machine
from midsource.bench.midhalf import postmaster
from midsource.bench.pair import Pair, await_alive, the_pair
from midsource.bench.row import Goal, Row, Runs
from midsource.bench.stage import Bench, Process
from midsource.store.database import Connection, scalar

NAME = "idle"
WHAT = "an instance with nothing to do"
SECONDS = 60.0
SETTLE_SECONDS = 10.0
"""After starting, and after other rows: journals are folded, connections given back."""
TARGET = (
    Goal("mid CPU", 3, "% of a core", at_most=True),
    Goal("marketing CPU", 3, "% of a core", at_most=True),
    Goal("mid transactions", 40, "a second", at_most=True),
    Goal("marketing transactions", 40, "a second", at_most=True),
    Goal("mid memory", 450, "MiB", at_most=True),
    Goal("marketing memory", 350, "MiB", at_most=True),
)


def run(bench: Bench) -> Row:
    """Watch ``bench.runs`` windows that together are a minute."""
    pair, runs = the_pair(bench), Runs()
    halves = {
        "mid": [pair.web, *_started(pair, "worker@mid1", "mta@mid1")],
        "marketing": [pair.worker, *_started(pair, "web@marketing")],
    }
    time.sleep(min(SETTLE_SECONDS, SECONDS * bench.scale))
    window = max(1.0, SECONDS * min(1.0, bench.scale) / bench.runs)
    with pair.mid.connection() as mid, pair.marketing.connection() as marketing:
        databases = {"mid": mid, "marketing": marketing}
        server = postmaster(mid)
        for turn in range(bench.runs):
            bench.say(f"{NAME}: {window:.0f} s, {turn + 1} of {bench.runs}")
            before = {half: _read(halves[half], databases[half]) for half in halves}
            database_before = machine.cpu_seconds(machine.family(server))
            time.sleep(window)
            for half, processes in halves.items():
                spent = [
                    late - early for early, late in zip(before[half], _read(processes, databases[half]), strict=True)
                ]
                runs.add(f"{half} CPU", "% of a core", spent[0] / window * 100)
                runs.add(f"{half} transactions", "a second", spent[1] / window)
                runs.add(f"{half} memory", "MiB", sum(machine.rss_mib(process.pid) for process in processes))
                runs.add(f"{half} proportional memory", "MiB", machine.pss_mib([process.pid for process in processes]))
            runs.add(
                "PostgreSQL CPU",
                "% of a core",
                (machine.cpu_seconds(machine.family(server)) - database_before) / window * 100,
            )
    names = [goal.measure for goal in TARGET[1:]]
    return Row(
        NAME, WHAT, runs["mid CPU"], TARGET, (),
        runs.several((*names, "mid proportional memory", "marketing proportional memory", "PostgreSQL CPU")),
        f"mid: web, worker, mta; marketing: web, worker; {bench.runs} windows of {window:.0f} s",
        scaled=bench.scale < 1,
    )  # fmt: skip


def _started(pair: Pair, *names: str) -> list[Process]:
    processes = []
    for name in names:
        process = pair.bench.process(pair.home, name)
        await_alive(pair.mid if "mid1" in name else pair.marketing, process)
        processes.append(process)
    return processes


def _read(processes: list[Process], conn: Connection) -> tuple[float, float]:
    """Return CPU seconds of the processes and transactions of their database so far. Raises Failed where one ended."""
    for process in processes:
        process.must_run()
    statement = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()"
    return machine.cpu_seconds([process.pid for process in processes]), float(scalar(conn, statement))

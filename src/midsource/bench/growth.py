"""*growth*: what a row of a large delivery costs beside a row of one a tenth as large, in the same run.

CPU seconds of all processes together for each row, PostgreSQL's too: wall time of a small delivery is mostly the engine's
waits, which would hide what grows. The small deliveries go to every eleventh person, spread over the tables of the large.
"""

from __future__ import annotations

from midsource.bench import prepare, sync
from midsource.bench.pair import Phase, the_pair
from midsource.bench.row import Goal, Measure, Row, Runs
from midsource.bench.stage import Bench

NAME = "growth"
WHAT = "CPU for each row of a delivery to everybody beside one to an eleventh"
SOME = "since in (1990, 1991, 1992)"
"""Three of 34 years: a condition like any other, and people from every page of the table."""
LIMIT = 1.25
PHASES = ("prepare", "hand-over", "sync")
TARGET = tuple(Goal(f"{phase}, large to small", LIMIT, "times", at_most=True) for phase in PHASES)


def run(bench: Bench) -> Row:
    """Take ``bench.runs`` small deliveries the whole way, and compare each phase with the large ones."""
    prepared, handed, _ = prepare.campaigns(bench)
    large = {phase: cpu(runs) for phase, runs in zip(PHASES, (prepared, handed, sync.measured(bench)), strict=True)}
    pair, runs, rows = the_pair(bench), Runs(), 0
    for turn in range(bench.runs):
        bench.say(f"{NAME}: run {turn + 1} of {bench.runs}")
        number, first, second = pair.campaign(SOME)
        rows = second.rows
        sync.send_all(pair, number)
        for phase, took in zip(PHASES, (first, second, pair.pull_logs(rows)), strict=True):
            runs.add(f"{phase}, large to small", "times", large[phase] / cpu_of(took))
            runs.add(f"{phase}, small", "s per 1 000", cpu_of(took))
    return Row(
        NAME, WHAT, runs[TARGET[-1].measure], TARGET, (),
        (*runs.several([goal.measure for goal in TARGET[:-1]]), *small(runs)),
        f"{pair.people} people and {rows} messages, {bench.runs} runs", scaled=bench.scale < 1,
    )  # fmt: skip


def small(runs: Runs) -> tuple[Measure, ...]:
    """Return what the small deliveries took."""
    return runs.several([f"{phase}, small" for phase in PHASES])


def cpu(runs: Runs) -> float:
    """Return the median CPU seconds of a thousand rows, all processes together."""
    return sum(runs[name].median for name in ("worker CPU", "web CPU", "PostgreSQL CPU"))


def cpu_of(phase: Phase) -> float:
    """Return the CPU seconds of a thousand rows of one phase."""
    return (phase.worker_cpu + phase.web_cpu + phase.database_cpu) / phase.rows * 1_000

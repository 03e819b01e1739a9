"""`bench`: measure what this machine does with midsource, beside limits and peers of the same run.

Everything is made in a folder of its own, with an embedded PostgreSQL of its own, and removed at the end: no home of an
operator is touched. Exit 1 only where a row could not be measured; a missed target stands in the table.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from midsource import __version__
from midsource.bench import machine
from midsource.bench.row import Beside, Goal, Measure, Row, show
from midsource.bench.rows import BY_NAME, ROWS
from midsource.bench.stage import Bench
from midsource.cli.group import group
from midsource.cli.output import err, say, say_error, say_json, say_table
from midsource.cli.session import runtime_folder
from midsource.model.errors import MidsourceError, UserError
from midsource.net.clock import SystemClock
from midsource.supervise.postgres import EmbeddedPostgres
from midsource.supervise.spawn import spawn

MAX_RUNS = 20
MAX_SCALE = 10.0
MAX_MTAS = 16

app = group()


@app.command()
def bench(
    rows: Annotated[list[str] | None, typer.Argument(help=f"Rows: all (default), {', '.join(BY_NAME)}.")] = None,
    runs: Annotated[int, typer.Option(min=1, max=MAX_RUNS, help="Runs of each row; the median counts.")] = 3,
    scale: Annotated[float, typer.Option(min=0.0001, max=MAX_SCALE, help="Amount of work; targets speak of 1.")] = 1.0,
    mtas: Annotated[
        int, typer.Option(min=0, max=MAX_MTAS, help="mta processes of the sending rows; 0: one for each core.")
    ] = 0,
    folder: Annotated[
        str, typer.Option(help="Where to make the folder of the run: names the disk to measure. Default: temporary.")
    ] = "",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the folder with its logs.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> int:
    """Measure rows of the performance table, each beside a limit or a peer of the same run."""
    chosen = chosen_rows(rows or ["all"])
    machine.must_be_readable()
    measured: list[Row] = []
    failed: list[dict[str, str]] = []
    began = SystemClock().now()
    with (
        _scene(folder, keep=keep) as (place, database),
        err.status("") as status,
        Bench(place, database, _start, runs, scale, mtas or os.cpu_count() or 1, say=status.update) as scene,
    ):
        for name in chosen:
            status.update(name)
            try:
                measured.append(BY_NAME[name].run(scene))
            except MidsourceError as exc:
                failed.append({"name": name, "why": str(exc)})
                say_error(f"{name} could not be measured: {exc}", exc.code)
            else:
                err.print(f"{name}: {figure(measured[-1].figure)}", markup=False, style="dim")
    _tell(measured)
    if json:
        say_json(
            {
                "midsource": __version__, "at": began.isoformat(timespec="seconds"), "machine": machine.describe(),
                "runs": runs, "scale": scale, "rows": [row.to_json() for row in measured], "failed": failed,
            }
        )  # fmt: skip
    return 1 if failed else 0


def chosen_rows(names: list[str]) -> list[str]:
    """Return the rows meant, in the order of the table. Raises UserError for a name that is none."""
    if unknown := [name for name in names if name != "all" and name not in BY_NAME]:
        raise UserError(f"there is no row {unknown[0]!r}", f"rows: all, {', '.join(BY_NAME)}")
    return [module.NAME for module in ROWS if "all" in names or module.NAME in names]


@contextmanager
def _scene(parent: str, *, keep: bool) -> Iterator[tuple[Path, Callable[[str], str]]]:
    """Give a fresh folder and a PostgreSQL in it; both end with the block."""
    if parent and not Path(parent).is_dir():
        raise UserError(f"there is no folder {parent}", "make it, or leave --folder out")
    place = Path(tempfile.mkdtemp(prefix="midsource-bench-", dir=parent or None))
    place.chmod(0o711)  # the server's user passes through, where root started us
    home = place / "server"
    home.mkdir(mode=0o711)
    server = EmbeddedPostgres(
        home, runtime_dir=runtime_folder(), system_folder=place / "system",
        progress=lambda sentence: err.print(sentence, markup=False, style="dim"),
    )  # fmt: skip
    try:
        with server.use() as use:

            def database(name: str) -> str:
                use.ensure_database(name)
                return use.dsn(name)

            yield place, database
    finally:
        server.stop_now()
        if keep:
            say(f"kept: {place}")
        else:
            shutil.rmtree(place, ignore_errors=True)


def _start(argv: Sequence[str], output: int | IO[bytes]) -> subprocess.Popen[bytes]:
    return spawn(argv, death_signal=signal.SIGKILL, output=output)


def _tell(measured: list[Row]) -> None:
    lines = [line for row in measured for line in _lines(row)]
    if lines:
        say_table(("row", "figure", "beside it, same run", "ratio", "target", "measured", "met"), lines)
        for row in measured:
            say(f"{row.name}: {row.setting}")


def _lines(row: Row) -> Iterator[tuple[Any, ...]]:
    """Yield as many lines as the row has goals or things beside it, whichever are more."""
    for number in range(max(len(row.beside), len(row.goals))):
        beside = row.beside[number] if number < len(row.beside) else None
        goal = row.goals[number] if number < len(row.goals) else None
        first = (row.name, figure(row.figure)) if number == 0 else ("", "")
        yield (*first, *_beside(beside), *_goal(row, goal))


def _beside(beside: Beside | None) -> tuple[str, str]:
    if beside is None:
        return ("", "")
    if beside.measure is None or beside.ratio is None:
        return (f"{beside.name}: {beside.absent}", "")
    return (f"{beside.name}: {figure(beside.measure)}", show(beside.ratio.median))


def _goal(row: Row, goal: Goal | None) -> tuple[str, str, str]:
    if goal is None:
        return ("", "", "")
    found = row.measure(goal.measure)
    holds = row.judged(goal)
    if found is None or holds is None:
        return (goal.words, show(found.median) if found else "", "not judged")
    met = "yes" if holds else "no"
    return (goal.words, show(found.median), "other work" if row.scaled else f"{met} (informs)" if goal.informs else met)


def figure(measure: Measure) -> str:
    """Return a median with its unit and half its spread."""
    return f"{show(measure.median)} {measure.unit} ±{measure.spread / 2:.0%}"

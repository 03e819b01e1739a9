"""Write docs/performance.md's table and pictures from the JSON of a run.

    midsource bench all --json > run.txt
    python -m midsource.bench.report run.txt docs/performance.md

The last line of the run is its JSON. Between the two marks of the page everything is replaced; the words around them
stay. The pictures go into the folder ``images`` beside the page.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from midsource.bench.chart import Bar, Group, draw
from midsource.bench.row import show
from midsource.model.errors import UserError

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
SPEED, MILLION = "bench-messages.svg", "bench-million.svg"
LIMITS = ("openssl", "bare", "copying")
"""Names of limits begin like this; whatever else is measured beside ours is a peer."""


def main(arguments: Sequence[str]) -> int:
    """Write the page; return the exit code."""
    if len(arguments) != 2:
        print("usage: python -m midsource.bench.report RUN PAGE", file=sys.stderr)
        return 2
    run, page = read_run(Path(arguments[0])), Path(arguments[1])
    images = page.parent / "images"
    images.mkdir(exist_ok=True)
    drawn = pictures(run)
    for name, picture in drawn.items():
        (images / name).write_text(picture, encoding="utf-8")
    page.write_text(replaced(page.read_text(encoding="utf-8"), "\n".join(figures(run, drawn))), encoding="utf-8")
    return 0


def read_run(path: Path) -> dict[str, Any]:
    """Return the run whose JSON is the last line of a file. Raises UserError where there is none."""
    lines = path.read_text(encoding="utf-8").strip().splitlines()
    try:
        run: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError) as exc:
        raise UserError(f"{path} does not end with the JSON of a run", "run `midsource bench all --json`") from exc
    return run


def replaced(text: str, figures_: str) -> str:
    """Return the page with other figures between its marks. Raises UserError where the marks are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError("the page has not the two marks", f"write {BEGIN} and {END} where the figures belong")
    return f"{before}{BEGIN}\n{figures_}\n{END}{after}"


def figures(run: dict[str, Any], drawn: dict[str, str]) -> Iterator[str]:
    """Yield the lines between the marks."""
    machine = run["machine"]
    yield ""
    yield (
        f"Measured {run['at'][:10]} with midsource {run['midsource']}: {machine['cores']} cores ({machine['cpu']}), "
        f"{machine['memory_gib']} GiB, {machine['system']} {machine['kernel'].split('-')[0]}, Python {machine['python']}, "
        f"median of {run['runs']} runs, ± half the spread."
    )
    if run["scale"] != 1:
        yield f"\n**With {run['scale']} of the work**: targets are not judged."
    yield ""
    yield "| row | figure | beside it, in the same run | ratio | target | measured | met |"
    yield "|---|---:|---|---:|---|---:|---|"
    for row in run["rows"]:
        yield from _rows(row)
    for failed in run["failed"]:
        yield f"| *{failed['name']}* | not measured | {failed['why']} | | | | |"
    yield ""
    yield "| row | what ran | CPU seconds for 1 000, and what else was seen |"
    yield "|---|---|---|"
    for row in run["rows"]:
        also = ", ".join(f"{measure['name']} {_value(measure)}" for measure in row["also"])
        yield f"| *{row['name']}* | {row['setting']} | {also} |"
    yield ""
    titles = {
        SPEED: "Messages a second beside limits and peers",
        MILLION: "Seconds for a million rows beside bare statements",
    }
    for name in drawn:
        yield f"![{titles[name]}](images/{name})"
        yield ""


def _rows(row: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each goal or thing beside the row, whichever are more."""
    beside, goals = row["beside"], row["goals"]
    for number in range(max(1, len(beside), len(goals))):
        cells = [f"*{row['name']}*", _figure(row["figure"])] if number == 0 else ["", ""]
        cells += _beside(beside[number]) if number < len(beside) else ["", ""]
        cells += _goal(row, goals[number]) if number < len(goals) else ["", "", ""]
        yield "| " + " | ".join(cells) + " |"


def _beside(beside: dict[str, Any]) -> list[str]:
    if "measure" not in beside:
        return [f"{beside['name']}: {beside['absent']}", ""]
    return [f"{beside['name']}: {_figure(beside['measure'])}", show(beside["ratio"]["median"])]


def _goal(row: dict[str, Any], goal: dict[str, Any]) -> list[str]:
    value = "" if goal["value"] is None else show(goal["value"])
    if goal["holds"] is None or row["scaled"]:
        return [goal["words"], value, "not judged"]
    return [goal["words"], value, ("yes" if goal["holds"] else "**no**") + ("" if goal["decides"] else " (informs)")]


def _figure(measure: dict[str, Any]) -> str:
    return f"{_value(measure)} ±{measure['spread'] / 2:.0%}"


def _value(measure: dict[str, Any]) -> str:
    return f"{show(measure['median'])} {measure['unit']}".strip()


def pictures(run: dict[str, Any]) -> dict[str, str]:
    """Return the pictures that the rows of this run allow, by file name."""
    rows = {row["name"]: row for row in run["rows"]}
    speed = [
        group for name, label in (("send", "Signed with RSA-2048"), ("send-unsigned", "Unsigned"))
        if (group := _speed(rows.get(name), label))
    ]  # fmt: skip
    million = [
        _group(rows[name], label, f"midsource {name}", "s")
        for name, label in (("prepare", "Prepare"), ("hand-over", "Hand over"), ("sync", "Bring results back"))
        if name in rows
    ]
    drawn = {SPEED: ("Messages of 20 kB a second", speed), MILLION: ("Seconds for a million people", million)}
    return {name: draw(title, groups) for name, (title, groups) in drawn.items() if groups}


def _speed(row: dict[str, Any] | None, label: str) -> Group | None:
    return None if row is None else _group(row, label, "midsource", "a second")


def _group(row: dict[str, Any], label: str, ours: str, unit: str) -> Group:
    bars = [Bar(ours, row["figure"]["median"], "ours")]
    for beside in row["beside"]:
        if "measure" in beside:
            kind: Literal["limit", "peer"] = "limit" if beside["name"].startswith(LIMITS) else "peer"
            bars.append(Bar(short(beside["name"]), beside["measure"]["median"], kind))
    target = next((goal["bound"] for goal in row["goals"] if goal["measure"] == row["figure"]["name"]), None)
    return Group(label, unit, bars, target)


def short(name: str) -> str:
    """Return as much of a name as fits beside a bar: "bare COPY of the ledger rows" without the rows."""
    return name.partition(",")[0].partition(" of ")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

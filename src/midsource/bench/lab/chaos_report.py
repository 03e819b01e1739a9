"""The report of a run of chaos: Markdown for people with a picture of the whole run, JSON beside it for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from midsource.bench.lab.chaos import Happened, Outcome
from midsource.bench.row import show

WIDTH, HEIGHT, LEFT, TOP = 900, 260, 60, 40
_STYLE = """
.page{fill:#fff}text{font:12px system-ui,sans-serif;fill:#1f2933}.title{font-size:15px;font-weight:600}
.fault{fill:#b4231a;opacity:.25}.heal{fill:#97a3b3;opacity:.25}.seen{stroke:#b4231a;stroke-width:2}
.sent{fill:none;stroke:#1f5fbf;stroke-width:2}.axis{stroke:#5b6776}
@media(prefers-color-scheme:dark){.page{fill:#0d1117}text{fill:#e6edf3}.sent{stroke:#79b0ff}.fault{fill:#ff8a80}
.seen{stroke:#ff8a80}.heal{fill:#a9b6c6}.axis{stroke:#a9b6c6}}
"""


def write(outcome: Outcome, path: Path) -> None:
    """Write ``path`` (Markdown), and beside it the same name with .json and .svg."""
    path.write_text(markdown(outcome, path.with_suffix(".svg").name), encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(as_dict(outcome), indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".svg").write_text(picture(outcome), encoding="utf-8")


def markdown(outcome: Outcome, picture_name: str) -> str:
    """Return the report as people read it."""
    verdict = "green" if not outcome.findings else f"{len(outcome.findings)} findings"
    total = outcome.sent[-1][1] if outcome.sent else 0
    figures = {
        "deliveries": f"{len(outcome.deliveries)} to {show(outcome.people)} people each",
        "messages accounted for, person by person": show(outcome.accounted),
        "sent, as the log says": show(total),
        "faults": len(outcome.happened),
        "parts answered 408 (half of them after the mid had committed)": f"{outcome.refused_parts} of {outcome.parts}",
        "named uncertain": outcome.uncertain,
        "second copies (all of them named uncertain)": outcome.twice,
    }
    return "\n".join([
        f"# Chaos: {verdict}", "",
        f"Seed {outcome.seed}, {outcome.seconds / 60:.1f} minutes with the healing. The same seed repeats the same faults.", "",
        f"![Messages sent over time, and each fault from its beginning to its healing]({picture_name})", "",
        "| | |", "|---|---|", *[f"| {name} | {value} |" for name, value in figures.items()], "",
        "## Findings", "", *([f"- {line}" for line in outcome.findings] or ["None."]), "",
        "## Faults", "",
        "| | fault | began s | ended s | seen after s | by | healed s after its end |", "|---|---|---|---|---|---|---|",
        *map(_row, outcome.happened), "",
    ])  # fmt: skip


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """Return the report as machines read it."""
    return {
        "seed": outcome.seed, "people": outcome.people, "seconds": round(outcome.seconds, 1), "ok": not outcome.findings,
        "deliveries": outcome.deliveries, "accounted": outcome.accounted, "uncertain": outcome.uncertain,
        "twice": outcome.twice, "parts": outcome.parts, "parts_refused": outcome.refused_parts,
        "findings": outcome.findings,
        "faults": [
            {
                "kind": one.fault.kind, "detail": one.fault.detail, "began": round(one.began, 1),
                "ended": one.ended and round(one.ended, 1), "seen": one.seen and round(one.seen, 1), "sign": one.sign,
                "healed": one.healed and round(one.healed, 1),
            }
            for one in outcome.happened
        ],
    }  # fmt: skip


def picture(outcome: Outcome) -> str:
    """Return the run as SVG: messages sent as a line, each fault as a band with a tick where it was seen."""
    ends = max([outcome.seconds, 1.0, *[at for at, _ in outcome.sent]])
    most = max([1, *[sent for _, sent in outcome.sent]])

    def x(seconds: float) -> float:
        return LEFT + seconds / ends * (WIDTH - LEFT - 20)

    def y(sent: int) -> float:
        return HEIGHT - 30 - sent / most * (HEIGHT - TOP - 40)

    line = " ".join(f"{x(at):.1f},{y(sent):.1f}" for at, sent in outcome.sent)
    bands = "".join(piece for one in outcome.happened for piece in _band(one, x, ends))
    said = f"{show(most)} messages in {ends / 60:.1f} minutes, {len(outcome.happened)} faults"
    return "\n".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t d">',
        "<title id='t'>A run of chaos</title>", f"<desc id='d'>{escape(said)}</desc>", f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT}" y="24">Messages sent, and what went wrong meanwhile (seed {outcome.seed})</text>',
        bands, f'<polyline class="sent" points="{line}"/>',
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - 20}" y1="{HEIGHT - 30}" y2="{HEIGHT - 30}"/>',
        f'<text x="{LEFT}" y="{HEIGHT - 12}">0</text>',
        f'<text x="{WIDTH - 20}" y="{HEIGHT - 12}" text-anchor="end">{ends / 60:.1f} minutes</text>',
        f'<text x="{LEFT - 6}" y="{TOP + 12}" text-anchor="end">{show(most)}</text>', "</svg>", "",
    ))  # fmt: skip


def _band(one: Happened, x: Any, ends: float) -> Iterator[str]:
    ended = one.ended if one.ended is not None else ends
    healed = one.healed if one.healed is not None else ends
    for kind, begins, until in (("fault", one.began, ended), ("heal", ended, healed)):
        width = max(2.0, x(until) - x(begins))
        yield f'<rect class="{kind}" x="{x(begins):.1f}" y="{TOP}" width="{width:.1f}" height="{HEIGHT - TOP - 30}">'
        yield f"<title>{escape(str(one.fault))}</title></rect>"
    if one.seen is not None:
        yield f'<line class="seen" x1="{x(one.seen):.1f}" x2="{x(one.seen):.1f}" y1="{TOP}" y2="{TOP + 10}"/>'


def _row(one: Happened) -> str:
    seen = "not by itself" if one.seen is None else f"{one.seen - one.began:.1f}"
    healed = "no" if one.healed is None or one.ended is None else f"{one.healed - one.ended:.1f}"
    ended = "" if one.ended is None else f"{one.ended:.0f}"
    sign = one.sign.replace("|", "/")[:160]
    return f"| {one.fault.number} | {one.fault} | {one.began:.0f} | {ended} | {seen} | {sign} | {healed} |"

"""Bar pictures as SVG: horizontal bars in groups, each group on its own scale, legible on light and on dark pages.

Text is text (it scales, and a screen reader gets the title and the description); colours follow the reader's scheme by a
media query inside the picture. What counts is in the label of each bar, so colour says nothing that words do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from midsource.bench.row import show

WIDTH, LEFT, RIGHT = 760, 250, 150
BAR, GAP, GROUP = 20, 8, 40
_STYLE = """
.page{fill:#fff}text{font:13px system-ui,sans-serif;fill:#1f2933}.title{font-size:15px;font-weight:600}.group{font-weight:600}
.value{font-variant-numeric:tabular-nums}.ours{fill:#1f5fbf}.peer{fill:#97a3b3}
.limit{fill:none;stroke:#5b6776;stroke-dasharray:4 3}.target{stroke:#b4231a;stroke-width:2}
@media(prefers-color-scheme:dark){.page{fill:#0d1117}text{fill:#e6edf3}.ours{fill:#79b0ff}.peer{fill:#6f7d8f}.limit{stroke:#a9b6c6}.target{stroke:#ff8a80}}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar. ``kind``: ours, a peer, or a limit that nobody passes."""

    label: str
    value: float
    kind: Literal["ours", "peer", "limit"] = "peer"


@dataclass(frozen=True, slots=True)
class Group:
    """Bars of one unit on one scale; ``target`` is marked by a line across ours."""

    label: str
    unit: str
    bars: Sequence[Bar]
    target: float | None = None


def draw(title: str, groups: Sequence[Group]) -> str:
    """Return the picture."""
    pieces: list[str] = []
    top = 50
    for group in groups:
        pieces += _group(group, top)
        top += GROUP + len(group.bars) * (BAR + GAP)
    said = "; ".join(
        f"{group.label}: " + ", ".join(f"{bar.label} {show(bar.value)} {group.unit}" for bar in group.bars)
        for group in groups
    )
    size = f'viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="t d">',
            f'<title id="t">{escape(title)}</title>',
            f'<desc id="d">{escape(said)}</desc>',
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{top}" rx="6"/>',
            f'<text class="title" x="16" y="26">{escape(title)}</text>',
            *pieces,
            "</svg>",
            "",
        )
    )


def _group(group: Group, top: int) -> Iterator[str]:
    most = max([bar.value for bar in group.bars] + ([group.target] if group.target else [])) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / most
    said = f" (line: target {show(group.target)} {group.unit})" if group.target else ""
    yield f'<text class="group" x="16" y="{top + 12}">{escape(group.label + said)}</text>'
    for number, bar in enumerate(group.bars):
        y = top + 22 + number * (BAR + GAP)
        width = max(2.0, bar.value * scale)
        yield f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(bar.label)}</text>'
        yield f'<rect class="{bar.kind}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" rx="3"/>'
        yield (
            f'<text class="value" x="{LEFT + width + 8:.1f}" y="{y + 15}">{show(bar.value)} {escape(group.unit)}</text>'
        )
        if bar.kind == "ours" and group.target:
            x = LEFT + group.target * scale
            yield f'<line class="target" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 4}" y2="{y + BAR + 4}"/>'

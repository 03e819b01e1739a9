"""The report of a run: Markdown for people, JSON beside it for machines, written anew after each round."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.crash.plan import Kind, Phase
from tests.crash.rounds import Round


@dataclass(slots=True)
class Report:
    """What is known of a run so far."""

    seed: int
    people: int
    wanted: int
    commit: str
    rounds: list[Round] = field(default_factory=list)
    began: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> list[Round]:
        """The rounds with findings."""
        return [one for one in self.rounds if one.findings]

    def write(self, path: Path) -> None:
        """Write ``path`` (Markdown) and the same name with .json."""
        path.write_text(self.markdown(), encoding="utf-8")
        path.with_suffix(".json").write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")

    def markdown(self) -> str:
        """Return the report as people read it."""
        verdict = "green" if not self.failed else f"{len(self.failed)} rounds with findings"
        done = f"{len(self.rounds)} of {self.wanted} rounds"
        lines = [
            f"# Crash test: {verdict}",
            "",
            f"Seed {self.seed}, {done}, {self.people} people each, {self.seconds / 60:.0f} minutes.",
            f"Began {self.began}, version {self.commit}.",
            "",
            *self._totals(),
            *self._kills(),
            *self._findings(),
            "## Rounds",
            "",
            "| round | kills, each with phase and progress | s | back after s | uncertain | at most | twice | policy | verdict |",
            "|---|---|---|---|---|---|---|---|---|",
            *[_row(one) for one in self.rounds],
            "",
        ]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as machines read it."""
        return {
            "seed": self.seed, "people": self.people, "wanted": self.wanted, "commit": self.commit, "began": self.began,
            "seconds": round(self.seconds, 1), "failed": [one.plan.number for one in self.failed],
            "rounds": [_as_dict(one) for one in self.rounds],
        }  # fmt: skip

    def _totals(self) -> list[str]:
        rounds = self.rounds
        hits = [struck for one in rounds for struck in one.hits]
        backs = [struck.back_seconds for struck in hits if struck.back_seconds is not None]
        ended = [one for one in rounds if one.doubts]
        figures = {
            "messages accounted for": sum(self.people for one in rounds if not one.findings),
            "kills": len(hits),
            "lost": "0" if not self.failed else "see findings",
            "sent twice (all of them named uncertain, policy resend)": sum(one.twice for one in rounds),
            "rounds in which an mta ended": len(ended),
            "uncertain in all": sum(one.uncertain for one in rounds),
            "most uncertain in one round, and what it might have been": _most(ended),
            "seconds until what was killed ran again: median, longest": f"{median(backs):.1f}, {max(backs):.1f}"
            if backs
            else "",
            "seconds of a round: median, longest": _median_and_longest(rounds),
        }
        rows = [f"| {name} | {value} |" for name, value in figures.items()]
        return ["| | |", "|---|---|", *rows, ""]

    def _kills(self) -> list[str]:
        count = Counter((struck.kind, struck.phase) for one in self.rounds for struck in one.hits)
        rows = [
            f"| {kind} | "
            + " | ".join(str(count[kind, phase]) for phase in Phase)
            + f" | {sum(count[kind, p] for p in Phase)} |"
            for kind in Kind
        ]
        head = f"| killed | {' | '.join(Phase)} | in all |"
        return ["## Kills by kind and by the phase they met", "", head, "|---" * (len(Phase) + 2) + "|", *rows, ""]

    def _findings(self) -> list[str]:
        lines = [f"- round {one.plan.number}: {finding}" for one in self.failed for finding in one.findings]
        return ["## Findings", "", *(lines or ["None."]), ""]


def progress_line(one: Round) -> str:
    """Return one line for a terminal."""
    kills = "; ".join(f"{struck.kind} {struck.phase}" for struck in one.hits)
    doubt = f"{one.uncertain} uncertain of at most {one.bound}"
    verdict = "ok" if not one.findings else f"FINDING {one.findings[0][:300]}"
    return f"round {one.plan.number}: {one.seconds:.1f} s, {kills}, {doubt}, {one.twice} twice: {verdict}"


def _most(ended: list[Round]) -> str:
    if not ended:
        return ""
    most = max(ended, key=lambda one: one.uncertain)
    return f"{most.uncertain} of {most.bound} (round {most.plan.number})"


def _median_and_longest(rounds: list[Round]) -> str:
    seconds = [one.seconds for one in rounds]
    return f"{median(seconds):.1f}, {max(seconds):.1f}" if seconds else ""


def _row(one: Round) -> str:
    kills = "<br>".join(f"{struck.kind}: {struck.phase} ({struck.progress})" for struck in one.hits)
    back = "<br>".join("never" if s.back_seconds is None else f"{s.back_seconds:.1f}" for s in one.hits)
    verdict = "ok" if not one.findings else "**finding**"
    figures = (one.plan.number, kills, f"{one.seconds:.1f}", back, one.uncertain, one.bound, one.twice, one.plan.policy)
    return "| " + " | ".join(map(str, figures)) + f" | {verdict} |"


def _as_dict(one: Round) -> dict[str, Any]:
    return {
        "round": one.plan.number, "delivery": one.delivery, "policy": one.plan.policy, "seconds": round(one.seconds, 2),
        "planned": [str(strike) for strike in one.plan.strikes],
        "kills": [
            {"kind": s.kind, "phase": s.phase, "progress": str(s.progress), "at": s.at.isoformat(),
             "connections": s.connections, "back_seconds": s.back_seconds}
            for s in one.hits
        ],
        "doubts": [
            {"connections": d.connections, "depth": d.depth, "rate": round(d.rate), "bound": d.bound} for d in one.doubts
        ],
        "uncertain": one.uncertain, "bound": one.bound, "twice": one.twice, "findings": one.findings,
    }  # fmt: skip

"""The long crash test: ``python -m tests.crash --rounds 200 --seed N --report FILE`` (behind ``make crash``).

Ends with 0 when no round had findings and each planned round was done, else with 1. The seed is printed; given again it
repeats the same kills at the same progress of the same deliveries.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from tests.crash.plan import plan
from tests.crash.quick import QuickHome
from tests.crash.report import Report, progress_line
from tests.crash.rounds import Round
from tests.crash.runner import run

from midsource.net.clock import SystemClock

PEOPLE = 20_000


def main() -> int:
    """Run, and return the exit code."""
    words = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    words.add_argument("--rounds", type=int, default=200, help="how many (default 200)")
    words.add_argument("--seed", type=int, default=None, help="repeat a run (default: drawn and printed)")
    words.add_argument("--first", type=int, default=1, help="begin with this round of the seed's (default 1)")
    words.add_argument("--people", type=int, default=PEOPLE, help=f"of each delivery (default {PEOPLE})")
    words.add_argument("--report", type=Path, default=Path("crash-report.md"), help="Markdown; JSON beside it")
    asked = words.parse_args()
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(1_000_000)
    report = Report(
        seed, asked.people, asked.rounds - asked.first + 1, _commit(), began=f"{SystemClock().now():%F %T} UTC"
    )
    began = time.monotonic()

    def done(result: Round) -> None:
        report.rounds.append(result)
        report.seconds = time.monotonic() - began
        report.write(asked.report)
        _say(progress_line(result))

    for number in (signal.SIGTERM, signal.SIGINT):  # also where the shell that started us ignored it
        signal.signal(number, _leave)
    _say(f"seed {seed}: {report.wanted} rounds of {asked.people} people, report in {asked.report}")
    run(plan(seed, asked.rounds)[asked.first - 1 :], asked.people, asked.report.with_suffix(".logs"), done, QuickHome)
    _say(
        f"seed {seed}: {len(report.rounds)} rounds in {report.seconds / 60:.0f} minutes, {len(report.failed)} with findings"
    )
    return 1 if report.failed or len(report.rounds) < report.wanted else 0


def _leave(number: int, _frame: FrameType | None) -> None:
    """End with our homes ended: what was done is in the report."""
    raise SystemExit(128 + number)


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

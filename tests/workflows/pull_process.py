"""A worker that does nothing but pull delivery logs, slice after slice: to be killed by a test."""

from __future__ import annotations

import sys
from pathlib import Path

from midsource.engine.work import Context
from midsource.net.clock import SystemClock
from midsource.store.database import Database
from midsource.workflows import delivery_logs


def tell(line: str) -> None:
    """Say a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Pull until nothing is left; each line of the journal goes to standard output."""
    dsn, home = sys.argv[1:]
    with Database("marketing", dsn, application="pull") as database:
        context = Context(
            database=database,
            clock=SystemClock(),
            home=Path(home),
            instance="marketing",
            subject=0,
            say=lambda level, line: tell(f"{level} {line}"),
            beat=lambda: tell("beat"),
            progress=lambda _values: None,
        )
        while delivery_logs.run_once(context).more_after_seconds is not None:
            tell("slice")
    tell("done")


main()

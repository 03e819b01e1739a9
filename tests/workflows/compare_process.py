"""A worker that compares, for tests that kill it: ``compare_process.py DSN HOME``."""

from __future__ import annotations

import sys
from pathlib import Path

from midsource.engine.work import Context
from midsource.net.clock import SystemClock
from midsource.store.database import Database
from midsource.workflows import reconcile


def main() -> None:
    """Say that it is ready, then run slices until it is killed."""
    with Database("marketing", sys.argv[1], application="compare") as database:
        context = Context(
            database=database,
            clock=SystemClock(),
            home=Path(sys.argv[2]),
            instance="marketing",
            subject=0,
            say=lambda _level, _line: None,
            beat=lambda: None,
            progress=lambda _told: None,
        )
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while reconcile.run_once(context).more_after_seconds is not None:
            pass


main()

"""The starts of one turn of the loop are one write, and no body leaves before it."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

from midsource.mid import replay
from midsource.mid.journal import Journal, JournalFull
from midsource.mid.records import Start
from midsource.mid.starts import Starts

Add: TypeAlias = Callable[[int], None]
Told: TypeAlias = list[tuple[int, BaseException | None, int]]


def start(number: int) -> Start:
    return Start(1, 202603 << 32 | 1, number, 7, 1)


def noted(journal: Journal) -> list[int]:
    return [found.id for found in replay.read(journal.directory).uncertain]


def in_one_turn(journal: Journal, act: Callable[[Starts, Add], None]) -> Told:
    """Return, for each start that was told to go, its number, the error, and how many were on disk by then."""
    told: Told = []

    async def turn() -> None:
        starts = Starts(journal)

        def go(number: int, error: BaseException | None) -> None:
            told.append((number, error, len(noted(journal))))

        act(starts, lambda number: starts.add(number, start(number), partial(go, number)))
        assert noted(journal) == [], "nothing is written before the turn ends"
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(turn())
    return told


def adding(*numbers: int) -> Callable[[Starts, Add], None]:
    def act(_: Starts, add: Add) -> None:
        for number in numbers:
            add(number)

    return act


def test_all_starts_of_a_turn_are_on_disk_before_the_first_body_goes(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "one", "a boot")
    told = in_one_turn(journal, adding(1, 2, 3))
    assert told == [(1, None, 3), (2, None, 3), (3, None, 3)]
    assert all(journal.has_begun(start(number).key) for number in (1, 2, 3))


def test_a_message_that_ended_before_its_turn_did_leaves_no_trace(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "one", "a boot")

    def act(starts: Starts, add: Add) -> None:
        add(1)
        add(2)
        starts.forget(1)

    assert in_one_turn(journal, act) == [(2, None, 1)]
    assert noted(journal) == [2]


def test_a_full_disk_holds_back_every_body_of_the_turn(tmp_path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = Journal(tmp_path, "one", "a boot")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        told = in_one_turn(journal, adding(1, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [(number, type(error), on_disk) for number, error, on_disk in told] == [
        (1, JournalFull, 0),
        (2, JournalFull, 0),
    ]
    assert not any(journal.has_begun(start(number).key) for number in (1, 2))
    assert journal.has_room
    assert noted(journal) == [], "what did not leave is not noted later either"

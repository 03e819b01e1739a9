"""One round: a delivery to everybody, strikes on its way, and then who got what, person by person.

Order of events: create and send by the command line · wait for each strike's point, strike, and start the supervisor
again where it was struck · wait until the delivery is over, its logs are back and everything runs · compare the sink
with the ledger and with the delivery log (`tests.story.accounting`) · compare what is uncertain with what may be.

What may be uncertain after a kill of an mta: a body on each of its connections, and what it sent in 50 ms. A kill of
anything else leaves nobody in doubt. Every wait is bounded; whatever does not hold is a finding, and nothing is raised.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2
from tests.crash.plan import Kind, RoundPlan, Strike
from tests.crash.progress import Eye, Progress
from tests.crash.strikes import Hit, everything_runs, hit

from midsource.bench.lab.accounting import Accounted, account_everybody
from midsource.cli.ground import Home
from midsource.config import load
from midsource.mid.transport import pipelining_of
from midsource.model.delivery import DeliveryState
from midsource.model.errors import MidsourceError
from midsource.model.message import MessageState
from midsource.smtp.events import Pipelining

LOOK_SECONDS = 0.02
STILL_SECONDS = 120.0
"""A delivery that does not move for so long does not go on: the longest back-off of the supervisor is 60 s, and a workflow's
second one as long again. A busy machine is slow, and moves."""
WHOLE_SECONDS = 900.0
"""For all of a delivery, on the slowest machine."""
BACK_SECONDS = 90.0
"""For what was killed to run again: the longest back-off is 60 s."""
COMMIT_SECONDS = 0.05
"""Outcomes are made durable this often (`mid.loops.SYNC_SECONDS`): what is lost with a process is younger."""
RATE_SECONDS = 1.0
DEPTH = {Pipelining.LOCK_STEP: 1, Pipelining.GROUPED: 1, Pipelining.ACROSS: 1}
"""Bodies without an answer on one connection: the next body waits for its 354, which follows the answer to the last dot."""
LIST = "everybody"


@dataclass(slots=True)
class Doubt:
    """What one kill may leave uncertain, and what that is made of."""

    connections: int
    depth: int
    rate: float

    @property
    def bound(self) -> int:
        """Connections times depth, and 50 ms of sending."""
        return self.connections * self.depth + math.ceil(self.rate * COMMIT_SECONDS)


@dataclass(slots=True)
class Round:
    """What a round did and found. No findings: it passed."""

    plan: RoundPlan
    delivery: int = 0
    seconds: float = 0.0
    hits: list[Hit] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    uncertain: int = 0
    twice: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def bound(self) -> int:
        """How many may be uncertain after all its kills."""
        return sum(doubt.bound for doubt in self.doubts)


def perform(home: Home, eye: Eye, plan: RoundPlan, people: int) -> Round:
    """Do one round; what goes wrong is among its findings."""
    result, began = Round(plan), time.monotonic()
    try:
        _send(home, result)
        progress = Progress(people)
        for strike in plan.strikes:
            progress = _strike(home, eye, strike, result, progress)
        _wait_over(home, eye, result, progress)
        _compare(home, result)
    except (AssertionError, MidsourceError, httpx2.HTTPError, subprocess.TimeoutExpired) as error:
        result.findings.append(f"{type(error).__name__}: {str(error) or 'no words'}"[:2_000])
    result.seconds = time.monotonic() - began
    return result


def forget_copies(home: Home) -> None:
    """Empty the sink after a round that was compared, so that each comparison reads its own messages only."""
    url = f"http://127.0.0.1:{load(home.path).sandbox.http_port}/clear"
    httpx2.post(url, timeout=30).raise_for_status()


def _send(home: Home, result: Round) -> None:
    result.delivery = home.delivery(LIST, uncertain=result.plan.policy)
    home.run("delivery", "send", str(result.delivery))


def _strike(home: Home, eye: Eye, strike: Strike, result: Round, progress: Progress) -> Progress:
    """Wait for the point of a strike, and do it."""
    if not strike.together:
        progress = _wait(
            home, eye, result, progress, lambda now: now.is_over or now.has_reached(strike.phase, strike.share)
        )
    time.sleep(strike.jitter_seconds)
    deadline = time.monotonic() + BACK_SECONDS
    while (struck := hit(home, eye, strike, progress)) is None:
        _look_back(home, eye, result)
        assert time.monotonic() < deadline, f"there is no {strike.kind} to kill"
        time.sleep(LOOK_SECONDS)
    result.hits.append(struck)
    if strike.kind is Kind.SUPERVISOR:
        home.up()
    return progress


def _wait(home: Home, eye: Eye, result: Round, seen: Progress, holds: Callable[[Progress], bool]) -> Progress:
    """Wait until something holds, as long as the delivery moves; return the last figures."""
    began = moved = time.monotonic()
    while True:
        now = eye.look(result.delivery, seen)
        _look_back(home, eye, result)
        if holds(now):
            return now
        if now != seen:
            seen, moved = now, time.monotonic()
        assert time.monotonic() - moved < STILL_SECONDS, f"it stands still for {STILL_SECONDS:.0f} s: {now}"
        assert time.monotonic() - began < WHOLE_SECONDS, f"not in {WHOLE_SECONDS:.0f} s: {now}"
        time.sleep(LOOK_SECONDS)


def _look_back(home: Home, eye: Eye, result: Round) -> bool:
    missing = [
        struck for struck in result.hits if not struck.look(home, eye)
    ]  # each is looked at: it notes its own time
    return not missing


def _wait_over(home: Home, eye: Eye, result: Round, progress: Progress) -> None:
    progress = _wait(home, eye, result, progress, lambda now: now.is_over and now.logged >= now.people)
    assert progress.state == DeliveryState.FINISHED, f"it ended otherwise: {progress}"
    deadline = time.monotonic() + BACK_SECONDS
    while not (_look_back(home, eye, result) and everything_runs(home)):
        assert time.monotonic() < deadline, f"not everything runs again after {BACK_SECONDS:.0f} s"
        time.sleep(LOOK_SECONDS)


def _compare(home: Home, result: Round) -> None:
    found = account_everybody(home, result.delivery)
    result.uncertain = len(found.ever_uncertain)
    result.twice = sum(1 for copies in found.copies.values() if copies > 1)
    result.doubts = [_doubt(home, result, struck, found) for struck in result.hits if _ends_an_mta(struck.kind)]
    assert result.uncertain <= result.bound, f"{result.uncertain} are uncertain, at most {result.bound} may be"
    left = len(found.ids(MessageState.UNCERTAIN))
    if result.plan.policy == "hold":
        assert left == result.uncertain, f"hold: {result.uncertain} were uncertain and {left} are"
        assert not result.twice, f"hold: {result.twice} got a second copy"
    else:
        assert not left, f"resend: {left} are still uncertain"


def _ends_an_mta(kind: Kind) -> bool:
    """Whether sending processes end: with their supervisor they do, and the sandbox in mid-conversation as well."""
    return kind in (Kind.MTA, Kind.SUPERVISOR)


def _doubt(home: Home, result: Round, struck: Hit, found: Accounted) -> Doubt:
    """Return what this kill may leave: connections as counted, or with a supervisor as many as the rules allow."""
    instance = load(home.path).instance("mid1")
    allowed = instance.connections_per_destination * len(set(found.domains.values()))
    [(sent,)] = home.rows(
        "mid1",
        "select count(*) from outcome where delivery_id = %s and event_at between %s - make_interval(secs => %s) and %s",
        (result.delivery, struck.at, RATE_SECONDS, struck.at),
    )
    connections = struck.connections if struck.kind is Kind.MTA else allowed
    assert connections <= allowed, f"{connections} connections, the rules allow {allowed}"
    return Doubt(connections, DEPTH[pipelining_of(instance)], sent / RATE_SECONDS)

"""A run of chaos: mail goes out all the time, faults of a plan come and go, and at the end everybody is accounted for.

Order of events: one delivery after another to everybody, sent through a link that a proxy disturbs · faults begin and end
by the plan · after the last one everything must heal by itself, every delivery end, `reconcile` find no difference, the
doctor have no finding above info · then sink, ledger and log are compared person by person.

Bounds: each wait has one, named below; what does not hold is a finding of the report, and the run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import httpx2
import psycopg

from midsource.bench.lab import signs
from midsource.bench.lab.accounting import account_everybody
from midsource.bench.lab.faults import Faults, Home
from midsource.bench.lab.plan import Fault
from midsource.model.clock import Clock
from midsource.model.delivery import FINAL
from midsource.model.errors import MidsourceError

LOOK_SECONDS = 0.25
HEAL_SECONDS = 180.0
"""The longest back-off of the supervisor is 60 s, a workflow's second one as long again."""
OVER_SECONDS = 900.0
"""For all deliveries to end after the last fault, on a slow machine."""
QUIET_SECONDS = 240.0
"""For findings to close by themselves: two clean looks of the doctor, five minutes apart at most when asked by hand."""
TROUBLE = (MidsourceError, psycopg.Error, httpx2.HTTPError, OSError)
_SENT = "select coalesce(sum(n), 0)::bigint from broad_log_total where state = 1"


@dataclass(slots=True)
class Happened:
    """A fault as it went: seconds since the run began, and by what it was seen."""

    fault: Fault
    began: float
    began_at: datetime
    before: dict[str, int]
    ended: float | None = None
    seen: float | None = None
    sign: str = ""
    healed: float | None = None


@dataclass(slots=True)
class Outcome:
    """What a run came to. No findings: it passed."""

    seed: int
    people: int
    seconds: float = 0.0
    happened: list[Happened] = field(default_factory=list)
    deliveries: list[int] = field(default_factory=list)
    sent: list[tuple[float, int]] = field(default_factory=list)
    uncertain: int = 0
    twice: int = 0
    accounted: int = 0
    parts: int = 0
    refused_parts: int = 0
    findings: list[str] = field(default_factory=list)


class Chaos:
    """One run in one home, which is up, with ``people`` on the list ``name``."""

    def __init__(
        self, home: Home, faults: Faults, clock: Clock, outcome: Outcome, name: str, say: Callable[[str], None]
    ) -> None:
        self._home = home
        self._faults = faults
        self._clock = clock
        self._outcome = outcome
        self._list = name
        self._say = say
        self._began = time.monotonic()

    def run(self, plan: list[Fault], seconds: float) -> Outcome:
        """Do it all; raises nothing that the system under test caused."""
        self._began = time.monotonic()
        left = list(plan)
        while self._now() < seconds:
            self._keep_sending()
            current = self._outcome.happened[-1] if self._outcome.happened else None
            if current and current.ended is None and self._now() >= current.began + current.fault.seconds:
                self._end(current)
            elif left and self._now() >= left[0].at and (current is None or current.ended is not None):
                self._begin(left.pop(0))
            self._look()
            time.sleep(LOOK_SECONDS)
        for happened in self._outcome.happened:
            if happened.ended is None:
                self._end(happened)
        self._outcome.parts, self._outcome.refused_parts = self._faults.parts, self._faults.refused
        self._heal()
        self._finish()
        self._outcome.seconds = self._now()
        return self._outcome

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _begin(self, fault: Fault) -> None:
        happened = Happened(fault, self._now(), self._clock.now(), signs.pids(self._home))
        self._outcome.happened.append(happened)
        self._say(f"{self._now():.0f} s: {fault}")
        self._must(f"{fault} could not be done", lambda: self._faults.begin(fault))

    def _end(self, happened: Happened) -> None:
        self._must(f"{happened.fault} could not be mended", lambda: self._faults.end(happened.fault))
        happened.ended = self._now()

    def _look(self) -> None:
        """Note what was seen of the faults that are not healed, and how many are sent."""
        begins = [one.began_at for one in self._outcome.happened] + [self._clock.now()]
        for happened, until in zip(self._outcome.happened, begins[1:], strict=True):
            if happened.seen is None:
                sign = signs.seen(self._home, happened.fault, (happened.began_at, until), happened.before)
                if sign is not None:
                    happened.seen = happened.began + max(0.0, (sign.at - happened.began_at).total_seconds())
                    happened.sign = sign.said
        waiting = [one for one in self._outcome.happened if one.ended is not None and one.healed is None]
        for happened in waiting:
            if signs.is_sound(self._home, happened.fault, happened.before):
                happened.healed = self._now()
        try:
            self._outcome.sent.append((self._now(), int(self._home.rows("marketing", _SENT)[0][0])))
        except TROUBLE:
            return

    def _keep_sending(self) -> None:
        """Order another delivery when there is none under way; an order that fails now is given again later."""
        try:
            states = self._home.rows("marketing", "select id, state from delivery order by id")
            if all(state in FINAL for _, state in states):
                delivery = self._home.delivery(self._list)
                self._outcome.deliveries.append(delivery)
                self._home.run("delivery", "send", str(delivery), code=None)
            else:
                self._send_unsent()
        except TROUBLE as exc:
            self._say(f"{self._now():.0f} s: no new delivery now ({exc})")

    def _heal(self) -> None:
        deadline = self._now() + HEAL_SECONDS
        while any(one.healed is None for one in self._outcome.happened) and self._now() < deadline:
            self._look()
            time.sleep(LOOK_SECONDS)
        for one in self._outcome.happened:
            if one.healed is None:
                self._find(f"{one.fault} (number {one.fault.number}) did not heal within {HEAL_SECONDS:.0f} s")

    def _finish(self) -> None:
        """Wait for the deliveries, compare both halves by the system's own means, and then everybody by ours."""
        deadline = self._now() + OVER_SECONDS
        while not self._are_over() and self._now() < deadline:
            self._send_unsent()
            self._look()
            time.sleep(LOOK_SECONDS)
        if not self._are_over():
            self._find(f"not every delivery was over {OVER_SECONDS:.0f} s after the last fault")
        self._must("reconcile", lambda: self._home.run("workflow", "run-now", "reconcile", "--wait"))
        self._no_finding()
        for number in self._ids():
            self._must(f"delivery {number}", partial(self._account, number))

    def _send_unsent(self) -> None:
        """Give the order again where the command met a fault, as its operator would."""
        try:
            for (delivery,) in self._home.rows("marketing", "select id from delivery where state = 0"):
                self._home.run("delivery", "send", str(delivery), code=None)
        except TROUBLE:
            return

    def _are_over(self) -> bool:
        try:
            open_ = self._home.rows(
                "marketing", "select count(*) from delivery where state <> all(%s)", ([int(s) for s in FINAL],)
            )
            waiting = self._home.rows(
                "marketing", "select coalesce(sum(n), 0)::bigint from broad_log_total where state in (6, 61)"
            )
        except TROUBLE:
            return False
        return not open_[0][0] and not waiting[0][0]

    def _no_finding(self) -> None:
        deadline, found = self._now() + QUIET_SECONDS, ["the doctor was not asked"]
        while found and self._now() < deadline:
            try:
                told = self._home.json("doctor", code=None)["findings"]
                found = [f"{one['check']}: {one['cause']}" for one in told if one["severity"] in ("error", "critical")]
            except (*TROUBLE, KeyError, ValueError, IndexError) as exc:
                found = [str(exc)]
            time.sleep(LOOK_SECONDS)
        for line in found:
            self._find(f"the doctor still says {line}")

    def _ids(self) -> list[int]:
        return [row[0] for row in self._home.rows("marketing", "select id from delivery order by id")]

    def _account(self, delivery: int) -> None:
        found = account_everybody(self._home, delivery)
        self._outcome.uncertain += len(found.ever_uncertain)
        self._outcome.twice += sum(1 for copies in found.copies.values() if copies > 1)
        self._outcome.accounted += sum(len(ids) for ids in found.states.values())

    def _must(self, what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except TROUBLE as exc:
            self._find(f"{what}: {exc}")

    def _find(self, sentence: str) -> None:
        self._outcome.findings.append(sentence[:2_000])
        self._say(f"{self._now():.0f} s: FINDING {sentence[:300]}")

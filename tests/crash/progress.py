"""How far a delivery is, seen from outside: both databases are asked every few milliseconds, whatever happens to them.

The eye keeps its own connections and never starts a server: that is left to the processes under test. While a
database is away it answers what it saw last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import psycopg
from tests.crash.plan import Phase

from midsource.cli.ground import Home
from midsource.cli.session import serving
from midsource.config import load
from midsource.model.delivery import FINAL, DeliveryState

_MARKETING = """
select state,
       (select coalesce(sum(rows), 0)::int from upload_part where delivery_id = d.id and state <> 'split'),
       (select coalesce(sum(n), 0)::int from broad_log_total where delivery_id = d.id and state not in (6, 61))
  from delivery d where id = %s
"""
_MID = "select count(*)::int, count(*) filter (where state <> 6)::int from message where delivery_id = %s"


@dataclass(frozen=True, slots=True)
class Progress:
    """Marketing's state; people in stored parts, in the mid's ledger, with an outcome there, with one in marketing's log."""

    people: int
    state: int = 0
    stored: int = 0
    at_mid: int = 0
    outcomes: int = 0
    logged: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing moves any more."""
        return DeliveryState(self.state) in FINAL

    def phase(self, aimed: Phase) -> Phase:
        """Return the first phase that is not done; logs return while others are sent, so that one is met where aimed at."""
        if self.state < DeliveryState.MESSAGE_FINALISED:
            return Phase.PREPARING
        if self.at_mid < self.people or self.state < DeliveryState.READY:
            return Phase.HANDING_OVER
        if aimed is Phase.LOG_RETURN and 0 < self.logged < self.people:
            return Phase.LOG_RETURN
        return Phase.SENDING if self.outcomes < self.people else Phase.FINISHING

    def has_reached(self, phase: Phase, share: float) -> bool:
        """Whether so much of a phase is done."""
        match phase:
            case Phase.PREPARING:
                targeted = 0.5 * (self.state >= DeliveryState.TARGET_READY)
                done = targeted + 0.5 * self.stored / self.people
                return done >= share or self.state >= DeliveryState.MESSAGE_FINALISED or share < 0.25
            case Phase.HANDING_OVER:
                return self.at_mid >= share * self.people
            case Phase.SENDING:
                return self.outcomes >= share * self.people
            case Phase.LOG_RETURN:
                return self.logged >= share * self.people
            case Phase.FINISHING:
                return self.outcomes >= self.people

    def __str__(self) -> str:
        """Say it as the report does."""
        return f"state {self.state}, {self.stored} stored, {self.at_mid} at the mid, {self.outcomes} tried, {self.logged} logged"


class Eye:
    """Looks at one home. ``close`` it."""

    def __init__(self, home: Home) -> None:
        with serving(load(home.path)) as urls:
            assert urls.use is not None
            self._urls = {name: urls.use.dsn(name) for name in ("marketing", "mid1")}
        self._open: dict[str, psycopg.Connection[Any]] = {}

    def look(self, delivery: int, last: Progress) -> Progress:
        """Return the progress now; of a database that does not answer, the figures of ``last``."""
        seen = last
        if row := self.ask("marketing", _MARKETING, (delivery,)):
            seen = replace(seen, state=row[0][0], stored=row[0][1], logged=row[0][2])
        if seen.state >= DeliveryState.MESSAGE_FINALISED and (row := self.ask("mid1", _MID, (delivery,))):
            seen = replace(seen, at_mid=row[0][0], outcomes=row[0][1])
        return seen

    def ask(self, instance: str, statement: str, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Query a database; nothing while it does not answer."""
        try:
            if instance not in self._open:
                self._open[instance] = psycopg.connect(self._urls[instance], autocommit=True, connect_timeout=2)
            return list(self._open[instance].execute(statement.encode(), params).fetchall())
        except psycopg.Error:
            if instance in self._open:
                self._open.pop(instance).close()
            return []

    def close(self) -> None:
        """Hang up."""
        for connection in self._open.values():
            connection.close()
        self._open.clear()

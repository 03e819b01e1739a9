"""Where the messages of a delivery wait on this mid, and why: dispatch batches by destination, and the last answers.

Bounds: LOOKED batches are looked at (a million messages to some thousand domains are fewer), SHOWN_DESTINATIONS shown.
Answers of providers quote addresses: what stands before an @ is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from midsource.model.delivery import SENDING, DeliveryState
from midsource.store.database import Connection
from midsource.web.console.pages.mid_view import Line

LOOKED = 20_000
SHOWN_DESTINATIONS = 25
SHOWN_ANSWERS = 12
_PERSON = re.compile(r"[^\s<>\"'(),;:]+@")


@dataclass(frozen=True, slots=True)
class Waiting:
    """The batches of one destination, or of all ('') : messages ready, leased by mta processes, deferred; the oldest times."""

    destination: str
    batches: int
    ready: int
    leased: int
    deferred: int
    ready_since: datetime | None
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Why a destination's messages are deferred: the last answer of one of them, without the person."""

    destination: str
    next_at: datetime
    attempts: int
    said_at: datetime
    reply: str


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Where a delivery's messages wait. ``whole`` counts all destinations; ``is_cut``: there are more batches than were looked at."""

    whole: Waiting
    destinations: Sequence[Waiting]
    answers: Sequence[Answer]
    is_cut: bool

    def reasons(self, line: Line, *, has_mta: bool) -> list[tuple[str, int]]:
        """Return why messages wait, as texts' names with how many, the weightiest first."""
        state, found = DeliveryState(line.state), []
        if self.whole.ready + self.whole.deferred and state not in SENDING:
            found.append(("not_sending", self.whole.ready + self.whole.deferred))
        elif self.whole.ready and not has_mta:
            found.append(("no_mta", self.whole.ready))
        elif self.whole.ready:
            found.append(("ready", self.whole.ready))
        if self.whole.leased:
            found.append(("leased", self.whole.leased))
        if self.whole.deferred and state in SENDING:
            found.append(("deferred", self.whole.deferred))
        return found


_BATCHES = sql.SQL("""
with b as materialized (
    select {}, destination, owner is not null as is_leased, ready_at
      from dispatch_batch where account_id = %(account)s and delivery_id = %(delivery)s limit %(looked)s) {}""")
"""Looking into ``ids`` unpacks them, which is most of the cost: once for each batch, to count, and for none that is not shown."""
_WAITING = _BATCHES.format(
    sql.SQL("cardinality(ids) as n"),
    sql.SQL("""
select coalesce(destination, ''), count(*)::int,
       coalesce(sum(n) filter (where not is_leased and ready_at <= now()), 0)::bigint,
       coalesce(sum(n) filter (where is_leased), 0)::bigint,
       coalesce(sum(n) filter (where not is_leased and ready_at > now()), 0)::bigint,
       min(ready_at) filter (where not is_leased and ready_at <= now()),
       min(ready_at) filter (where not is_leased and ready_at > now())
  from b group by grouping sets ((), (destination))
 order by grouping(destination) desc, sum(n) desc, 1 limit %(shown)s"""),
)
_ANSWERS = _BATCHES.format(
    sql.SQL("id"),
    sql.SQL("""
select w.destination, w.ready_at, m.attempts, m.event_at, m.reply
  from (select distinct on (destination) destination, ready_at, id from b where not is_leased and ready_at > now()
         order by destination, ready_at limit %(shown)s) w
  join dispatch_batch d using (id)
  join message m on m.account_id = %(account)s and m.delivery_id = %(delivery)s and m.id = d.ids[1]
 order by w.ready_at"""),
)


def dispatch(conn: Connection, line: Line) -> Dispatch:
    """Read where the messages of ``line`` wait."""
    asked = {"account": line.account_id, "delivery": line.id, "looked": LOOKED}
    rows = conn.execute(_WAITING, {**asked, "shown": SHOWN_DESTINATIONS + 1}).fetchall()
    found = [Waiting(*row) for row in rows]
    answers = conn.execute(_ANSWERS, {**asked, "shown": SHOWN_ANSWERS}).fetchall()
    told = [Answer(row[0], row[1], row[2], row[3], _PERSON.sub("…@", row[4])) for row in answers]
    return Dispatch(found[0], found[1:], told, found[0].batches >= LOOKED)

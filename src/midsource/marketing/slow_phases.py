"""Which phases of a delivery's preparation are slow, in which statement, and in what state the tables behind it are (F01).

For `delivery show`, `delivery explain`, the journal of the preparation, and the doctor. The history is one bounded statement; tables
and indexes are measured only where a phase is slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from midsource.marketing.deliveries import Delivery
from midsource.model.ids import Month
from midsource.policy import phase_pace
from midsource.policy.phase_pace import HISTORY_DAYS, LEAST_ROWS, SlowPhase, Suspect
from midsource.store.database import Connection
from midsource.store.maintenance import measuring

HISTORY_ROWS = 1_000
"""Phases of the last deliveries that make a median."""
WRITE_LOG = "write the target into the delivery log"
READ_PEOPLE = "read a page of people"
STORE_PARTS = "store parts"
TABLES_OF: Mapping[str, tuple[str, ...]] = {
    WRITE_LOG: ("broad_log", "recipient", "list_member", "quarantine", "denylist"),
    READ_PEOPLE: ("broad_log", "recipient"),
    STORE_PARTS: ("upload_part", "delivery"),
}
"""What each statement of the preparation reads and writes; of the delivery log only the month of the delivery."""
_HISTORY = """
    select p ->> 'phase', (p ->> 'rows')::float8 / (p ->> 'seconds')::float8
      from (select id, phases from delivery where created_at > %s - make_interval(days => %s) and id <> %s
             order by created_at desc limit %s) d, jsonb_array_elements(d.phases) p
     where (p ->> 'rows')::bigint >= %s and (p ->> 'seconds')::float8 > 0
     limit %s
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A slow phase, what is to blame, and both as one sentence without a final dot."""

    slow: SlowPhase
    suspect: Suspect | None
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Return it for `--json`."""
        table = self.suspect.table if self.suspect else None
        index = self.suspect.index if self.suspect else None
        return asdict(self.slow) | {
            "table": table.name if table else None,
            "dead_rows": table.dead if table else None,
            "index": index.name if index else None,
            "sentence": self.sentence,
        }


def of_delivery(conn: Connection, delivery: Delivery, now: datetime) -> list[Found]:
    """Return the phases of ``delivery`` that are slow, done or under way, in their order."""
    if not any(phase["rows"] >= LEAST_ROWS for phase in delivery.phases):
        return []
    history: dict[str, list[float]] = {}
    limits = (now, HISTORY_DAYS, delivery.id, HISTORY_ROWS, LEAST_ROWS, HISTORY_ROWS)
    for name, pace in conn.execute(_HISTORY, limits).fetchall():
        history.setdefault(name, []).append(pace)
    judged = [phase_pace.slow(phase, history.get(phase["phase"], [])) for phase in delivery.phases]
    slow = [found for found in judged if found is not None]
    if not slow:
        return []
    tables, indexes, _, _ = measuring.sized(conn)
    found = []
    for phase in slow:
        names = TABLES_OF.get(phase.slowest.name, ()) if phase.slowest else ()
        month = f"broad_log_{Month.of_delivery(delivery.id)}"
        blamed = phase_pace.suspect([month if name == "broad_log" else name for name in names], tables, indexes)
        found.append(Found(phase, blamed, phase_pace.sentence(phase, blamed)))
    return found

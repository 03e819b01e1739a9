"""Move a technical workflow from state to state: the only place that writes `workflow.state`, by the table of model/workflow.py.

One statement compares and sets: the table's row for the event is bound into it, so two who move the same workflow at once
cannot both start from the same state. The hold (since when, by whom) is kept in the same statement.
"""

from __future__ import annotations

from midsource.model.workflow import ON_SCHEDULE, TRANSITIONS, WorkflowEvent, WorkflowState
from midsource.store.database import Connection

ON_SCHEDULE_NUMBERS = sorted(int(state) for state in ON_SCHEDULE)
"""To bind where a statement asks for workflows whose ticks come."""
HELD_NUMBERS = sorted(int(state) for state in WorkflowState if state not in ON_SCHEDULE)

_MOVE = """
update workflow w
   set state = m.target,
       held_at = case when m.target <> all(%(held)s) then null when w.state = m.target then w.held_at else now() end,
       held_by = case when m.target <> all(%(held)s) then '' when w.state = m.target then w.held_by else %(by)s end,
       warnings = case when w.state = m.target then w.warnings else 0 end,
       warned_at = case when w.state = m.target then w.warned_at end
  from unnest(%(sources)s::smallint[], %(targets)s::smallint[]) m(source, target)
 where w.name = %(name)s and w.state = m.source
returning w.state
"""


def move(conn: Connection, name: str, event: WorkflowEvent, by: str = "") -> WorkflowState | None:
    """Let ``event`` happen to ``name`` and return its new state; None where its state does not take it, or it is not there."""
    pairs = [(int(source), int(moves[event])) for source, moves in TRANSITIONS.items() if event in moves]
    row = conn.execute(
        _MOVE,
        {
            "name": name,
            "by": by,
            "held": HELD_NUMBERS,
            "sources": [source for source, _ in pairs],
            "targets": [target for _, target in pairs],
        },
    ).fetchone()
    return None if row is None else WorkflowState(row[0])

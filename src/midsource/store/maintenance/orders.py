"""What an operator orders of maintenance: by name, or whatever is due; refused in one sentence that lists what there is."""

from __future__ import annotations

from collections.abc import Sequence

from midsource.model.errors import NotFound
from midsource.model.maintenance import Act, Measures, Step
from midsource.policy import maintenance as policy

NAMES_SHOWN = 60
"""Names that a refusal lists."""
_ACTS = {
    Act.VACUUM_ANALYZE: frozenset({Act.VACUUM, Act.VACUUM_ANALYZE, Act.ANALYZE}),
    Act.REINDEX: frozenset({Act.REINDEX, Act.DROP}),
}
"""What an order without names is about."""


def ordered(
    measures: Measures, settings: policy.Settings, act: Act, names: Sequence[str], *, by: str
) -> tuple[Step, ...]:
    """Return the steps of an order, VACUUM_ANALYZE or REINDEX: of the tables (a parent means its partitions) or indexes
    named, due or not; without names those that are due. Raises NotFound for a name that there is not.
    """
    if not names:
        return tuple(step for step in policy.plan(measures, settings, by=by) if step.act in _ACTS[act])
    tables = {name for table in measures.tables for name in (table.name, table.parent)} - {""}
    indexes = {index.name for index in measures.indexes} if act is Act.REINDEX else set()
    unknown = [name for name in names if name not in tables | indexes]
    if unknown:
        known = sorted({table.parent or table.name for table in measures.tables})
        more = f" and {len(known) - NAMES_SHOWN} more" if len(known) > NAMES_SHOWN else ""
        raise NotFound(f"there is no table {unknown[0][:80]!r}", f"there are: {', '.join(known[:NAMES_SHOWN])}{more}")
    return policy.of(measures, names, act)

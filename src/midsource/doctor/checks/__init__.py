"""What the doctor looks at: one module a family, and the list of all checks in the order they are run."""

from __future__ import annotations

from midsource.doctor.check import Check
from midsource.doctor.checks import (
    database,
    deliveries,
    engine,
    feeds,
    links,
    machine,
    pointers,
    results,
    sending,
    supervisors,
    workflows,
)

CHECKS: tuple[Check, ...] = (
    *engine.CHECKS,
    *workflows.CHECKS,
    *links.CHECKS,
    *pointers.CHECKS,
    *deliveries.CHECKS,
    *sending.CHECKS,
    *feeds.CHECKS,
    *results.CHECKS,
    *database.CHECKS,
    *machine.CHECKS,
    *supervisors.CHECKS,
)
"""Those about supervisors are last: one of them goes by what the others found."""

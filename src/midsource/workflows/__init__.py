"""Technical workflows: one module each, all of one shape; this list is the registration."""

from __future__ import annotations

from types import ModuleType

from midsource.workflows import (
    cleanup,
    cleanup_paused_workflows,
    database_maintenance,
    delivery_counters,
    delivery_indicators,
    delivery_jobs,
    delivery_logs,
    delivery_statistics,
    doctor,
    reconcile,
)

WORKFLOWS: tuple[ModuleType, ...] = (
    delivery_counters,
    delivery_logs,
    delivery_statistics,
    delivery_jobs,
    delivery_indicators,
    cleanup,
    cleanup_paused_workflows,
    database_maintenance,
    doctor,
    reconcile,
)

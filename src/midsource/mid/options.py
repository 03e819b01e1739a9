"""The options of a mid: how long `cleanup` keeps what, when maintenance acts (store/options.py reads and checks them)."""

from __future__ import annotations

from midsource.model.options import (
    AUDIT_DELAY,
    BROAD_LOG_DELAY,
    DELIVERY_DELAY,
    DISK_BUDGET,
    MID_OPTIONS,
    OUTCOME_DELAY,
    PAUSED_PERIOD,
    UNPULLED_DELAY,
    WORKFLOW_DELAY,
)
from midsource.store.maintenance import settings
from midsource.store.options import KEPT_SECONDS, PAUSED_SECONDS, OptionTable

_NAMES = (BROAD_LOG_DELAY, OUTCOME_DELAY, UNPULLED_DELAY, DELIVERY_DELAY, WORKFLOW_DELAY, AUDIT_DELAY)
MAX_DISK_GB = 1_000_000
"""A petabyte: no database of ours is larger."""
TABLE = OptionTable(
    MID_OPTIONS,
    counts={DISK_BUDGET: (0, MAX_DISK_GB)},
    delays=dict.fromkeys(_NAMES, KEPT_SECONDS) | {PAUSED_PERIOD: PAUSED_SECONDS},
    forms=settings.FORMS,
)

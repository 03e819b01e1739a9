"""Steps of `cleanup` over what operators leave behind: sessions that ended by themselves, the record of who did what."""

from __future__ import annotations

from midsource.model.options import AUDIT_DELAY
from midsource.store.cleanup_rows import old_rows

SESSIONS = old_rows(
    "operator_sessions", "sessions of operators that expired", "operator_session", key=("token_hash",), order="expires_at", at="expires_at"
)  # fmt: skip
AUDIT = old_rows(
    "audit", "the record of who did what", "audit", key=("id",), order="id", at="at", option=AUDIT_DELAY
)  # fmt: skip

STEPS = (SESSIONS, AUDIT)

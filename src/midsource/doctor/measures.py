"""What the doctor's own tables say, for ``/metrics``. See store/measures.py for the shape."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from midsource.doctor import book
from midsource.model.metrics import Sample
from midsource.store.database import Connection, scalar


def findings(conn: Connection, now: datetime) -> Iterator[Sample]:
    """Yield open findings by severity, how old the last look is, and how many supervisors could not be told."""
    for severity, count in book.counted(conn).items():
        yield Sample("midsource_findings_open", count, (str(severity),))
    looked_at = scalar(conn, "select max(looked_at) from doctor_look")
    if looked_at is not None:
        yield Sample("midsource_doctor_look_age_seconds", (now - looked_at).total_seconds())
    yield Sample(
        "midsource_supervisors_failing", scalar(conn, "select count(*) from supervisor where active and failures > 0")
    )

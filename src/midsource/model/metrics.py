"""Every figure that ``/metrics`` shows, declared once: name, type, labels, unit, meaning, and on which role.

docs/reference/metrics.md is this table; a scrape that names a figure which is not in it is a bug, and a test compares
the two on a running pair. A *gauge* that counts rows is read from the database of the instance, so each web process of it shows
the same; what begins with ``midsource_http``, ``midsource_pool`` and ``midsource_journal`` is of one process or machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]


class Where(StrEnum):
    """Which instances show a figure."""

    BOTH = "both"
    MARKETING = "marketing"
    MID = "mid"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure. ``name`` is complete, with unit and ``_total`` as scraped; ``unit`` is for people."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    unit: str
    meaning: str
    where: Where = Where.BOTH


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a figure, with a value for each of its labels in order."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


RECENT_HOURS = 24
"""What ended and what failed is counted over the last day: an alert on it clears by itself."""
COUNTED_AT_MOST = 10_000
"""A backlog is counted so far and no further: beyond it the exact number changes nothing, and a scrape stays cheap."""

_DAY = f"in the last {RECENT_HOURS} hours"
_WEEK = "in the last 7 days"
_MONTHS = "of deliveries created this month and the month before"

METRICS: tuple[Metric, ...] = (
    Metric("midsource_build_info", "gauge", ("version", "role", "instance"), "1", "What runs here; always 1."),
    Metric("midsource_measured", "gauge", ("part",), "0 or 1", "Whether the figures of a part could be read at the last look; 0: they are missing."),
    Metric("midsource_measure_seconds", "gauge", ("part",), "seconds", "How long reading them took."),
    Metric("midsource_process_alive", "gauge", ("process", "host"), "0 or 1", "Whether a process beat in the last 30 s; one that said goodbye is not shown."),
    Metric("midsource_process_beat_age_seconds", "gauge", ("process", "host"), "seconds", "Since its last beat (every 5 s)."),
    Metric("midsource_processes_alive", "gauge", ("kind",), "processes", "Processes alive, by kind."),
    Metric("midsource_http_requests_total", "counter", ("method", "route", "status"), "requests", "Requests answered, by route as declared; route 'none': refused before any, or unknown."),
    Metric("midsource_http_request_seconds", "histogram", ("route",), "seconds", "From the first byte of a request to the end of its answer; long-polls of the feed wait up to 25 s by design."),
    Metric("midsource_http_requests_under_way", "gauge", (), "requests", "Requests being answered at this moment."),
    Metric("midsource_pool_connections", "gauge", ("state",), "connections", "Database connections of this web process: open, idle, and the most it may have."),
    Metric("midsource_pool_waiting", "gauge", (), "requests", "Requests that wait for a database connection at this moment."),
    Metric("midsource_pool_failures_total", "counter", (), "waits", "Waits for a database connection that ended without one."),
    Metric("midsource_database_connections", "gauge", ("kind",), "connections", "Connections to the instance's database, by kind of process; 'other': anybody else."),
    Metric("midsource_database_connections_allowed", "gauge", (), "connections", "What the server allows altogether."),
    Metric("midsource_database_bytes", "gauge", (), "bytes", "Size of the instance's database on disk."),
    Metric("midsource_database_rows", "gauge", ("state",), "rows", "Rows of all tables, live and dead (not vacuumed yet), as the server counts them."),
    Metric("midsource_database_transaction_age", "gauge", (), "transactions", "Age of the oldest transaction id; the server forces a vacuum at 200 million and refuses writes at 2 147 million."),
    Metric("midsource_database_oldest_transaction_seconds", "gauge", (), "seconds", "Since the oldest open transaction began that this role may see; 0: there is none."),
    Metric("midsource_maintenance_actions", "gauge", ("outcome",), "actions", f"Actions of database maintenance {_WEEK}: done, skipped, failed, cut."),
    Metric("midsource_jobs_unfinished", "gauge", ("kind", "state"), "jobs", "Jobs that wait for a worker or run."),
    Metric("midsource_jobs_ended", "gauge", ("kind", "outcome"), "jobs", f"Jobs that ended {_DAY}: finished, failed, aborted."),
    Metric("midsource_workflow_state", "gauge", ("workflow", "state"), "1", "The state a technical workflow is in."),
    Metric("midsource_workflow_failed", "gauge", ("workflow",), "0 or 1", "The flag *failed* beside the state."),
    Metric("midsource_workflow_failures_in_a_row", "gauge", ("workflow",), "runs", "Runs that failed since the last success."),
    Metric("midsource_workflow_success_age_seconds", "gauge", ("workflow",), "seconds", "Since its last success; since it was registered where it never succeeded."),
    Metric("midsource_workflow_next_run_seconds", "gauge", ("workflow",), "seconds", "Until its next run; negative: overdue. Absent while it is paused or stopped."),
    Metric("midsource_workflow_runs_ended", "gauge", ("workflow", "outcome"), "runs", f"Runs that ended {_DAY}: finished, failed, aborted."),
    Metric("midsource_findings_open", "gauge", ("severity",), "findings", "Open findings of the doctor by severity: info, warning, error, critical; muted ones among them."),
    Metric("midsource_doctor_look_age_seconds", "gauge", (), "seconds", "Since the doctor last looked at this instance; absent where it never did."),
    Metric("midsource_supervisors_failing", "gauge", (), "supervisors", "Active supervisors that could not be told at the last try."),
    Metric("midsource_deliveries", "gauge", ("account", "state"), "deliveries", f"Deliveries by state, {_MONTHS.removeprefix('of deliveries ')}; account: external account (marketing), account of the sender (mid)."),
    Metric("midsource_messages", "gauge", ("account", "state"), "messages", f"Messages by state, {_MONTHS}, from stored totals: sent, failed, pending, deferred, uncertain, cancelled; ignored: excluded (marketing)."),
    Metric("midsource_parts", "gauge", ("account", "state"), "parts", f"Delivery parts {_MONTHS}: stored, acknowledged, split (marketing); taken (mid)."),
    Metric("midsource_pointer_lag_seconds", "gauge", ("account", "stream", "lane"), "seconds", "Age of what has been read of a mid's results. Lane recent: the last 48 hours, read first; backlog: the option.", Where.MARKETING),
    Metric("midsource_account_answer_age_seconds", "gauge", ("account",), "seconds", "Since a mid last answered; since the account was made where it never did.", Where.MARKETING),
    Metric("midsource_account_problem", "gauge", ("account",), "0 or 1", "Whether the last call over the link failed.", Where.MARKETING),
    Metric("midsource_link_failures", "gauge", ("account", "method", "code"), "calls", f"Calls over the link that failed {_DAY}, by the field's method and HTTP code; 0: no answer.", Where.MARKETING),
    Metric("midsource_feed_lost_messages", "gauge", ("account", "stream"), "messages", "Messages open here whose results a mid no longer kept when they were asked for, until reconciled.", Where.MARKETING),
    Metric("midsource_orders_unconfirmed", "gauge", ("account",), "orders", "Orders (start, pause, resume, stop) that a mid has not confirmed.", Where.MARKETING),
    Metric("midsource_feed_unnumbered", "gauge", (), "batches", f"Feed batches that no reader has asked for yet; counted to {COUNTED_AT_MOST}.", Where.MID),
    Metric("midsource_feed_backlog", "gauge", ("account", "stream"), "batches", f"Numbered batches that an account has not acknowledged; counted to {COUNTED_AT_MOST}.", Where.MID),
    Metric("midsource_feed_asked_age_seconds", "gauge", ("account", "stream"), "seconds", "Since an account last asked for a feed.", Where.MID),
    Metric("midsource_dispatch_batches", "gauge", ("state",), "batches", "Dispatch batches (up to 500 messages): ready, leased, deferred.", Where.MID),
    Metric("midsource_dispatch_ready_age_seconds", "gauge", (), "seconds", "How long the oldest ready batch has waited for an mta process.", Where.MID),
    Metric("midsource_leases_expired", "gauge", (), "batches", "Leases past their end that nobody has taken back.", Where.MID),
    Metric("midsource_outcomes_set_aside", "gauge", (), "outcomes", "Outcomes the database refused, kept apart and tried again.", Where.MID),
    Metric("midsource_journals", "gauge", ("state",), "journals", "Journals of mta processes on this machine: of a living process, or waiting for replay.", Where.MID),
    Metric("midsource_journal_bytes", "gauge", (), "bytes", "Size of all journals on this machine.", Where.MID),
    Metric("midsource_feed_waiters", "gauge", (), "requests", "Long-polls waiting in this web process.", Where.MID),
)  # fmt: skip


def of_role(role: str) -> tuple[Metric, ...]:
    """Return the figures that an instance of ``role`` shows."""
    return tuple(metric for metric in METRICS if metric.where in (Where.BOTH, role))

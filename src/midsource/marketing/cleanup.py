"""The steps of `cleanup` on a marketing instance, in the order in which they depend on each other.

Delivery logs go by whole months (marketing/cleanup_logs.py, store/months.py), expired deliveries are closed first (marketing/expiry.py).
Figures stay: totals of a delivery are not counted in its log rows once these are gone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from midsource.engine import cleanup as of_engine
from midsource.marketing import cleanup_logs, expiry
from midsource.model.message import Reason
from midsource.model.options import JOB_LOG_DELAY, MAILBOX_FULL_DELAY, REJECTS_DELAY
from midsource.security import cleanup as of_security
from midsource.store.cleanup import Removable, Removed, Scene, Step
from midsource.store.cleanup_rows import matching_rows, old_rows

ERRORS_KEPT = timedelta(days=10)
"""An address with errors is valid again when none came for this long (the field's rule)."""
REQUESTS_KEPT = timedelta(days=1)
"""Answers of the API that a repeated request gets (web/api/idempotency.py)."""
PARTS_A_PAGE = 500
"""Stored parts of up to 4 MB each: their bodies are only marked as gone, but each is a row with its long text."""
FILES_A_PAGE = 1_000


def _count_bodies(scene: Scene) -> Removable:
    with scene.database.connection() as conn:
        row = conn.execute(
            "select count(*), coalesce(sum(bytes), 0)::bigint from upload_part p join delivery d on d.id = p.delivery_id "
            "where d.state in (85, 87, 95) and p.body is not null"
        ).fetchone()
    assert row is not None
    return Removable(row[0], row[1])


def _page_bodies(scene: Scene) -> Removed:
    """Drop bodies that the end of their delivery left behind; they hold addresses and are never sent again."""
    with scene.database.transaction() as conn:
        row = conn.execute(
            "with found as (select p.delivery_id, p.part from upload_part p join delivery d on d.id = p.delivery_id "
            "  where d.state in (85, 87, 95) and p.body is not null limit %s), "
            "gone as (update upload_part p set body = null from found f "
            "  where p.delivery_id = f.delivery_id and p.part = f.part returning p.bytes) "
            "select count(*), coalesce(sum(bytes), 0)::bigint from gone",
            (PARTS_A_PAGE,),
        ).fetchone()
    assert row is not None
    return Removed(row[0], row[1], more=row[0] == PARTS_A_PAGE)


def _rejects(scene: Scene) -> list[tuple[Path, datetime, int]]:
    """Return (file, time, bytes) of what imports refused, the oldest first. Files of this machine's home."""
    found = []
    for path in (scene.home / "rejects").glob("*.csv"):
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        found.append((path, datetime.fromtimestamp(about.st_mtime, UTC), about.st_size))
    return sorted(found, key=lambda file: file[1])


def _count_rejects(scene: Scene) -> Removable:
    files = _rejects(scene)
    old = [file for file in files if file[1] < scene.before]
    oldest = files[0][1] + scene.kept if files and not old else None
    return Removable(len(old), sum(size for _, _, size in old), next_at=oldest)


def _page_rejects(scene: Scene) -> Removed:
    old = [file for file in _rejects(scene) if file[1] < scene.before][:FILES_A_PAGE]
    for path, _, _ in old:
        path.unlink(missing_ok=True)
    return Removed(len(old), sum(size for _, _, size in old), more=len(old) == FILES_A_PAGE)


STEPS: tuple[Step, ...] = (
    Step("expired_deliveries", "open log rows of deliveries whose validity is over", expiry.count, expiry.page),
    cleanup_logs.STEP,
    Step("stored_parts", "bodies of stored parts of deliveries that are over", _count_bodies, _page_bodies),
    matching_rows(
        "part_records", "records of parts of deliveries whose log is gone", "upload_part p",
        "not exists (select from delivery d where d.id = p.delivery_id and d.log_dropped_at is null)",
        key=("delivery_id", "part"),
    ),
    matching_rows(
        "delivery_samples", "samples of the counters of deliveries that are over", "delivery_sample s",
        "exists (select from delivery d where d.id = s.delivery_id and d.state in (85, 87, 95))", key=("delivery_id", "at"),
    ),
    old_rows("link_events", "failed calls over the link", "link_event", key=("id",), order="id", at="at", option=JOB_LOG_DELAY),
    matching_rows(
        "feed_losses", "losses that were mended", "feed_loss", "mended_at < %(before)s",
        key=("account", "stream", "delivery_id"), option=JOB_LOG_DELAY,
    ),
    matching_rows(
        "pull_gaps", "gaps that were filled", "pull_gap", "filled_at < %(before)s", key=("id",), option=JOB_LOG_DELAY,
    ),
    matching_rows(
        "addresses_with_errors", f"addresses with errors, valid again after {ERRORS_KEPT.days} days without one", "quarantine",
        "state = 1 and since < %(before)s", key=("address_key",), kept=ERRORS_KEPT,
    ),
    matching_rows(
        "full_mailboxes", "full mailboxes from the quarantine", "quarantine",
        f"state = 3 and reason = {int(Reason.MAILBOX_FULL)} and since < %(before)s",
        key=("address_key",), option=MAILBOX_FULL_DELAY,
    ),
    matching_rows(  # no foreign keys say so: they cost an import too much
        "list_members", "members of lists whose person or list is gone", "list_member m",
        "not exists (select from recipient r where r.id = m.recipient_id) "
        "or not exists (select from recipient_list l where l.id = m.list_id)", key=("list_id", "recipient_id"),
    ),
    Step("import_rejects", "files of what imports refused", _count_rejects, _page_rejects, REJECTS_DELAY),
    old_rows("api_requests", "answers kept for repeated requests", "api_request", key=("who", "key"), order="at", at="at", kept=REQUESTS_KEPT),
    *of_security.STEPS,
    of_engine.JOB_JOURNALS,
    *of_engine.STEPS,
)  # fmt: skip

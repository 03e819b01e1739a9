"""The steps of `cleanup` on a mid, in the order in which they depend on each other.

Results go by days (mid/cleanup_feed.py), the ledger by months (mid/cleanup_ledger.py), expired deliveries are closed
first (mid/expiry.py). What was set aside is reported and never removed; a journal of an mta process goes only when everything
in it is in PostgreSQL.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from midsource.engine import cleanup as of_engine
from midsource.mid import aside, cleanup_feed, cleanup_ledger, expiry, replay
from midsource.model.options import DELIVERY_DELAY
from midsource.security import cleanup as of_security
from midsource.store.cleanup import Removable, Removed, Scene, Step
from midsource.store.cleanup_rows import matching_rows, old_rows
from midsource.store.database import scalar

MARKS_KEPT = timedelta(days=7)
"""A journal that comes back later (its machine was away) is recognised by its outcomes, which are kept for longer."""
JOURNALS_A_PAGE = 100


def journals_of(home: Path, instance: str) -> Path:
    """Return the folder of the journals of an instance's mta processes on this machine."""
    return home / "journal" / instance


def _applied_journals(scene: Scene) -> list[tuple[Path, int]]:
    """Return (folder, bytes) of the journals that nobody holds and nobody needs. One that is damaged is recovery's."""
    found = []
    for folder in replay.folders(journals_of(scene.home, scene.instance)):
        fd = replay.hold(folder)
        if fd is None:
            continue
        try:
            told = replay.read(folder)
            if not told.unapplied and not told.uncertain and not told.damage:
                found.append((folder, sum(path.stat().st_size for path in folder.glob("*.log"))))
        finally:
            os.close(fd)
    return found


def _count_journals(scene: Scene) -> Removable:
    found = _applied_journals(scene)
    return Removable(len(found), sum(size for _, size in found))


def _page_journals(scene: Scene) -> Removed:
    removed = size = 0
    for folder, bytes_ in _applied_journals(scene)[:JOURNALS_A_PAGE]:
        fd = replay.hold(folder)
        if fd is None:
            continue
        try:
            replay.remove(folder)
        finally:
            os.close(fd)
        removed, size = removed + 1, size + bytes_
    return Removed(removed, size)


def _count_aside(scene: Scene) -> Removable:
    with scene.database.connection() as conn:
        number = aside.count(conn)
    return Removable(note=f"{number} outcomes are set aside, tried again and kept" if number else "")


def _page_aside(scene: Scene) -> Removed:
    with scene.database.connection() as conn:
        number = aside.count(conn)
        oldest = scalar(conn, "select min(delivery_id) from outcome_aside")
    said = f"{number} outcomes that the database refused are set aside (first delivery {oldest}): see its log for why"
    return Removed(said=(said,) if number else ())


STEPS: tuple[Step, ...] = (
    Step("expired_deliveries", "waiting messages of deliveries whose validity is over", expiry.count, expiry.page),
    cleanup_feed.STEP,
    cleanup_ledger.STEP,
    matching_rows(
        "dispatch_leftovers", "dispatch batches of deliveries that are over", "dispatch_batch b",
        "owner is null and not exists (select from delivery d where d.account_id = b.account_id and d.id = b.delivery_id "
        "and d.finished_at is null)", key=("id",),
    ),
    matching_rows(
        "part_answers", "answers to parts of deliveries whose ledger is gone", "delivery_part p",
        "exists (select from delivery d where d.account_id = p.account_id and d.id = p.delivery_id "
        "and d.ledger_dropped_at is not null)", key=("account_id", "delivery_id", "part"),
    ),
    matching_rows(
        "delivery_totals", "counters of deliveries whose ledger is gone", "message_total t",
        "not exists (select from delivery d where d.account_id = t.account_id and d.id = t.delivery_id "
        "and (d.ledger_dropped_at is null or d.finished_at >= %(before)s))",
        key=("account_id", "delivery_id", "domain", "state"), option=DELIVERY_DELAY,
    ),
    matching_rows(
        "deliveries", "deliveries whose ledger and counters are gone", "delivery d",
        "ledger_dropped_at is not null and finished_at < %(before)s "
        "and not exists (select from message_total t where t.account_id = d.account_id and t.delivery_id = d.id) "
        "and not exists (select from delivery_part p where p.account_id = d.account_id and p.delivery_id = d.id)",
        key=("account_id", "id"), option=DELIVERY_DELAY,
    ),
    old_rows(
        "journal_marks", "marks of journal batches in the database", "journal_applied",
        key=("process", "segment", "number"), order="applied_at", at="applied_at", kept=MARKS_KEPT,
    ),
    Step("mta_journals", "journals of ended mta processes whose outcomes are all recorded", _count_journals, _page_journals),
    Step("outcomes_aside", "nothing: it reports outcomes that were set aside", _count_aside, _page_aside),
    *of_security.STEPS,
    *of_engine.STEPS,
)  # fmt: skip

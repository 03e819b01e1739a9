"""`delivery recompute` on a real database: what was wrong is corrected, once, and noted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.web.console_scene import fill

from midsource.net.clock import SystemClock
from midsource.store import migrate
from midsource.store.database import Database, scalar

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_counters_are_counted_anew_and_corrected(midsource: Run, external: Callable[..., tuple[str, str]]) -> None:
    url, _ = external()
    with Database("marketing", url, application="tests") as database:
        migrate.upgrade(database, "marketing")
        with database.transaction() as conn:
            migrate.describe_instance(conn, "marketing", "marketing")
        scene = fill(database, SystemClock().now() - timedelta(minutes=1))
        with database.connection() as conn:
            conn.execute("update broad_log_total set n = n + 5 where delivery_id = %s and state = 2", (scene.finished,))
            failed = scalar(conn, "select count(*) from broad_log where delivery_id = %s and state = 2", (scene.finished,))  # fmt: skip
        first = midsource("delivery", "recompute", str(scene.finished), "--json")
        told = json.loads(first.stdout.splitlines()[-1])
        assert (told["id"], told["log"]["failed"], told["mid"]["failed"]) == (scene.finished, failed, failed)
        assert told["corrected"] > 0
        again = midsource("delivery", "recompute", str(scene.finished))
        assert "every counter was right" in again.stdout
        assert midsource("delivery", "recompute", "7").returncode == 2
        assert midsource("delivery", "recompute", "x").returncode == 2
        with database.connection() as conn:
            found = conn.execute("select verb, subject, detail->>'corrected' from audit order by id").fetchall()
    noted = [row for row in found if row[0] == "delivery.recompute"]
    assert noted == [
        ("delivery.recompute", str(scene.finished), str(told["corrected"])),
        ("delivery.recompute", str(scene.finished), "0"),
    ]


@pytest.mark.parametrize("words", [("recompute",), ("recompute", "1", "2")])
def test_wrong_words_are_wrong_use(midsource: Run, words: tuple[str, ...]) -> None:
    assert midsource("delivery", *words).returncode == 2

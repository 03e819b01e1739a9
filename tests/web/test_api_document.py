"""Requests made up from the OpenAPI document, all kinds of them: each answer is one that the document foretells."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.web.console_scene import fill
from tests.web.console_served import serving

from midsource.config import Config, InstanceConfig
from midsource.engine import jobs
from midsource.net.clock import SystemClock
from midsource.security import api_keys
from midsource.security.roles import Permission, at_command_line
from midsource.store.database import Database
from midsource.web.api.app import PATH

REQUESTS = 10
"""Made up for each operation, beside those of the boundaries that the document names."""
SEED = 7
OWN_GRAMMAR = (
    "POST /deliveries",
    "POST /segments",
    "POST /segments/preview",
    "POST /supervisors",
    "PUT /options/{name}",
    "PUT /workflows/{name}/schedule",
)
"""What these take has a grammar of its own (conditions, lengths of time, schedules, names of what exists): 422 says where it is wrong."""
EXISTING = {
    "/workflows/": "defaultMidSourcingDlv",
    "/options/": "NmsEmail_RetryCount",
    "/accounts/": "defaultEmailMid",
    "/supervisors/": "ops",
}


def settings(delivery: int, job: str) -> str:
    """Return the settings of a run: what exists, and which check does not hold where."""
    lines = ["[parameters]", f'"path.number" = {delivery}', f'"path.job" = "{job}"', '"path.finding" = 1']
    for path, name in EXISTING.items():
        lines += ["[[operations]]", f'include-path-regex = "^{path}"', f'parameters = {{ "path.name" = "{name}" }}']
    for name in OWN_GRAMMAR:
        lines += ["[[operations]]", f'include-name = "{name}"', "checks.positive_data_acceptance.enabled = false"]
    return "\n".join(lines)


@pytest.fixture
def served(
    make_database: Callable[..., str], migrated: str, tmp_path: Path, free_port: int
) -> Iterator[tuple[str, str]]:
    """Serve a marketing instance with a history; yields address and key."""
    instance = InstanceConfig("marketing", "marketing", port=free_port)
    with Database("marketing", make_database(migrated), application="tests", max_connections=8) as database:
        scene = fill(database, SystemClock().now(), people=50)
        with database.transaction() as conn:
            job = jobs.ask(conn, "prepare", scene.edited)
            (tmp_path / "schemathesis.toml").write_text(settings(scene.finished, job))
            conn.execute(
                "insert into process (name, kind, host, pid, executor, beat_at) values ('worker@x', 'worker', 'h', 1, 'e', now() + interval '1 hour')"
            )
            conn.execute(
                "insert into finding (check_name, severity, evidence, cause, remedy, opened_at, seen_at, changed_at) "
                "values ('machine.key', 'error', 'e', 'c', 'r', now(), now(), now())"
            )
            conn.execute(
                "insert into supervisor (name, channel, address, created_by) values ('ops', 'syslog', 'tcp://127.0.0.1:9', 'tests')"
            )
            key = api_keys.issue(conn, at_command_line("tests"), "made up", list(Permission), SystemClock().now())
        with serving(Config(tmp_path, instances=(instance,)), instance, database) as address:
            yield address, key


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_every_answer_is_one_that_the_document_foretells(served: tuple[str, str], tmp_path: Path) -> None:
    address, key = served
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{address}{PATH}/openapi.json",
        "--header", f"Authorization: Bearer {key}", "--max-examples", str(REQUESTS), "--seed", str(SEED),
        "--phases", "examples,coverage,fuzzing", "--no-color", "--workers", "1",
        "--generation-database", "none",
    ]  # fmt: skip
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout[-30_000:] + told.stderr[-2_000:]

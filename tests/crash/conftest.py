"""A mid in the field, as in the stories of sending: real mta processes, sandbox and PostgreSQL."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midsource.store import migrate
from midsource.store.database import Database
from midsource.testing.field import Field


@pytest.fixture(scope="session")
def mid_template(make_database: Callable[..., str]) -> str:
    """Migrate once; tests copy it."""
    dsn = make_database()
    with Database("mid1", dsn, application="tests") as opened:
        migrate.upgrade(opened, "mid")
    return dsn


@pytest.fixture
def field(tmp_path: Path, mid_template: str, make_database: Callable[..., str]) -> Iterator[Field]:
    """A mid whose leases are short, so that stories of lost leases take seconds: the rules are the same."""
    made = Field(tmp_path, make_database(mid_template), lease_seconds=6.0, stalled_seconds=2.0, lost_seconds=3.0)
    with made:
        yield made


@pytest.fixture
def chance() -> random.Random:
    """Chance with a seed that a failed test shows."""
    seed = random.SystemRandom().randrange(1_000_000)
    sys.stdout.write(f"seed {seed}\n")
    return random.Random(seed)

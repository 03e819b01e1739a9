"""A running home for each module of stories."""

from __future__ import annotations

import itertools
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from midsource.cli.ground import Home

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def bare_home() -> Iterator[Home]:
    """A home that does not exist yet."""
    folder = Path(tempfile.mkdtemp(prefix="midsource-story-", dir="/tmp"))
    folder.chmod(0o711)
    home = Home(folder / f"h{next(_NUMBERS)}")
    yield home
    home.end()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def home(bare_home: Home) -> Home:
    """A home whose processes all run."""
    bare_home.init()
    bare_home.up()
    return bare_home


@pytest.fixture
def chance() -> random.Random:
    """Chance with a seed that a failed test shows."""
    seed = random.SystemRandom().randrange(1_000_000)
    sys.stdout.write(f"seed {seed}\n")
    return random.Random(seed)

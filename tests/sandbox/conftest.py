"""A sandbox in a process of its own, as an operator runs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.sandbox.sandbox_process import RunningSandbox, StartSandbox, sandbox_starter


@pytest.fixture
def start_sandbox() -> Iterator[StartSandbox]:
    with sandbox_starter() as start:
        yield start


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    """One sandbox for a module's tests: each uses recipients of its own."""
    with sandbox_starter() as start:
        yield start(tmp_path_factory.mktemp("home"))

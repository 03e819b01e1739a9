"""Both halves, linked over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midsource.testing.link import LinkedHalves, linked, templates


@pytest.fixture(scope="session")
def link_templates(make_database: Callable[..., str]) -> tuple[str, str]:
    """Migrate both roles once."""
    return templates(make_database)


@pytest.fixture
def halves(
    make_database: Callable[..., str], link_templates: tuple[str, str], tmp_path: Path
) -> Iterator[LinkedHalves]:
    """Give an empty marketing instance with one external account, and its mid behind a real web server."""
    with linked(make_database, link_templates, tmp_path) as both:
        yield both

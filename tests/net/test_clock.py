from __future__ import annotations

import platform
import uuid

import pytest

from midsource.net.clock import SystemClock


@pytest.mark.skipif(platform.system() not in ("Linux", "Darwin"), reason="the systems we run on")
def test_a_machine_says_which_boot_it_is_and_says_the_same_again() -> None:
    said = SystemClock().boot_id()
    assert uuid.UUID(said)
    assert SystemClock().boot_id() == said

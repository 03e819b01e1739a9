"""`lab` with wrong words: one sentence, and nothing is touched."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("lab", "history", "--since", "then"), "'then' is no date: write --since 2020-01-01"),
        (("lab", "history", "--deliveries", "10", "--rows", "3"), "3 rows for 10 deliveries are not possible here"),
        (("lab", "chaos", "--report", "/nowhere/at/all.md"), "there is no folder /nowhere/at: make it"),
    ],
)
def test_wrong_words_get_one_sentence(
    midsource: Run, external: Callable[..., object], words: tuple[str, ...], sentence: str
) -> None:
    external()
    assert midsource("init").returncode == 0
    done = midsource(*words)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_history_is_refused_beside_a_mid_that_mails_the_real_world(
    midsource: Run, external: Callable[..., object], tmp_path: Path
) -> None:
    external()
    file = tmp_path / "midsource.toml"
    file.write_text(
        file.read_text(encoding="utf-8").replace('role = "mid"', 'role = "mid"\ntransport = "mx"'), encoding="utf-8"
    )
    done = midsource("lab", "history")
    assert done.returncode == 1
    assert "mid1 mails by mx: the lab works beside a sandbox only" in done.stderr

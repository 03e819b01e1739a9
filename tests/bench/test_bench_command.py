"""`midsource bench` as an operator runs it: real processes, a real PostgreSQL, a real sink, little work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from midsource.config import environment

PATH = environment()["PATH"]


def bench(*words: str, path: str = PATH) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "midsource", "bench", *words],
        capture_output=True, text=True, timeout=200, check=False, env={"PATH": path},
    )  # fmt: skip


@pytest.mark.slow
def test_the_sending_rows_are_measured_and_told_as_a_table_and_as_json(open_folder: Path) -> None:
    done = bench("send", "cpu", "render", "--scale", "0.01", "--runs", "2", "--json", "--folder", str(open_folder))
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    said = json.loads(last)
    assert [row["name"] for row in said["rows"]] == ["send", "cpu", "render"]
    assert said["failed"] == []
    for row in said["rows"]:
        assert len(row["figure"]["runs"]) == 2
        assert all(value > 0 for value in row["figure"]["runs"])
    assert said["rows"][0]["met"] is None, "a hundredth of the work judges no target"
    assert any(line.startswith("send ") for line in table)
    assert not list(open_folder.glob("midsource-bench-*")), "nothing is left behind"


@pytest.mark.slow
def test_the_rows_of_a_pair_are_measured_on_real_deliveries(open_folder: Path) -> None:
    done = bench(
        *("prepare", "hand-over", "sync", "growth", "idle"),
        *("--scale", "0.002", "--runs", "1", "--json", "--folder", str(open_folder)),
    )
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout.splitlines()[-1])["rows"]}
    assert list(rows) == ["prepare", "hand-over", "sync", "growth", "idle"]
    for name in ("prepare", "hand-over", "sync"):
        assert rows[name]["figure"]["median"] > 0
        assert rows[name]["beside"][0]["measure"]["median"] > 0
    also = {measure["name"]: measure["median"] for measure in rows["idle"]["also"]}
    assert 50 < also["mid memory"] < 2_000
    assert also["marketing transactions"] > 0


def test_a_row_that_is_none_is_wrong_use_and_names_those_there_are() -> None:
    done = bench("sned")
    assert done.returncode == 2
    assert "there is no row 'sned': rows: all, send, send-unsigned" in done.stderr.replace("\n", " ")


def test_without_a_c_compiler_a_row_says_so_in_one_sentence_and_the_command_fails(tmp_path: Path) -> None:
    done = bench("send", "--scale", "0.001", "--runs", "1", "--json", path=str(tmp_path))
    assert done.returncode == 1
    assert "there is no compiler: install cc, then repeat" in done.stderr.replace("\n", " ")
    said = json.loads(done.stdout.splitlines()[-1])
    assert [row["name"] for row in said["failed"]] == ["send"]

"""The page and its pictures, made from the JSON of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from midsource.bench import report
from midsource.bench.row import Goal, Row, Runs
from midsource.model.errors import UserError

PAGE = f"# Performance\n\nbefore\n\n{report.BEGIN}\nold figures\n{report.END}\n\nafter\n"


def run_of(*rows: Row, failed: Any = ()) -> dict[str, Any]:
    machine = {"cores": 2, "cpu": "some", "memory_gib": 4, "system": "Linux", "kernel": "6.1.0-x", "python": "3.11.7"}
    return {
        "midsource": "0.1.0", "at": "2026-01-02T03:04:05+00:00", "machine": machine, "runs": 2, "scale": 1.0,
        "rows": [row.to_json() for row in rows], "failed": list(failed),
    }  # fmt: skip


def sending() -> Row:
    runs = Runs()
    for figure, signs in ((4_000.0, 6_000.0), (5_000.0, 6_200.0)):
        runs.add("messages", "msg/s", figure)
        runs.against("openssl speed rsa2048", "a second", signs, figure / signs)
        runs.add("mta CPU", "s per 1 000", 0.4)
    goals = (Goal("ratio to openssl speed rsa2048", 0.6, ""), Goal("messages", 15_000, "msg/s", informs=True))
    beside = (runs.beside("openssl speed rsa2048"), runs.beside("naive Python, signed", "not <here>"))
    return Row("send", "what", runs["messages"], goals, beside, runs.several(("mta CPU",)), "1 mta process")


def written(tmp_path: Path, run: dict[str, Any]) -> str:
    page = tmp_path / "performance.md"
    page.write_text(PAGE, encoding="utf-8")
    (tmp_path / "run.txt").write_text("a table\n" + json.dumps(run) + "\n", encoding="utf-8")
    assert report.main([str(tmp_path / "run.txt"), str(page)]) == 0
    return page.read_text(encoding="utf-8")


def test_the_figures_replace_the_old_ones_and_the_words_around_stay(tmp_path: Path) -> None:
    text = written(tmp_path, run_of(sending()))
    assert "old figures" not in text
    assert text.startswith("# Performance\n\nbefore\n")
    assert text.endswith("\nafter\n")
    assert "| *send* | 4 500 msg/s ±11% | openssl speed rsa2048: 6 100 a second ±2% | 0.737 |" in text
    assert "| 0.737 | yes |" in text
    assert "| messages ≥ 15 000 msg/s | 4 500 | **no** (informs) |" in text
    assert "naive Python, signed: not <here>" in text
    assert written(tmp_path, run_of(sending())) == text, "writing again changes nothing"


def test_a_row_that_could_not_be_measured_says_why(tmp_path: Path) -> None:
    text = written(tmp_path, run_of(failed=[{"name": "send", "why": "there is no compiler."}]))
    assert "| *send* | not measured | there is no compiler. |" in text


def test_the_picture_is_a_picture_and_says_in_words_what_it_shows(tmp_path: Path) -> None:
    written(tmp_path, run_of(sending()))
    picture = ET.parse(tmp_path / "images" / report.SPEED).getroot()
    space = "{http://www.w3.org/2000/svg}"
    bars = [rect for rect in picture.iter(f"{space}rect") if rect.get("class") != "page"]
    assert [bar.get("class") for bar in bars] == ["ours", "limit"], "what was not measured has no bar"
    said = picture.find(f"{space}desc")
    assert said is not None
    assert said.text == "Signed with RSA-2048: midsource 4 500 a second, openssl speed rsa2048 6 100 a second"
    longest = max(float(bar.get("width", "0")) for bar in bars)
    assert 0 < longest < float(picture.get("width", "0"))


def test_a_page_without_marks_or_a_run_without_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two marks"):
        report.replaced("# Performance\n", "x")
    (tmp_path / "run.txt").write_text("a table only\n", encoding="utf-8")
    with pytest.raises(UserError, match="does not end with the JSON"):
        report.read_run(tmp_path / "run.txt")

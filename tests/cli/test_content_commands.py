"""Templates, seed addresses and proofs from the command line, on a real home."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from midsource.cli.main import global_first, run

External = Callable[..., tuple[str, str]]


def test_templates_and_seed_addresses_are_kept_by_name(
    external: External, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def told(*words: str, code: int = 0) -> str:
        given = run(global_first(["--home", str(tmp_path), *words]))
        said = "".join(capfd.readouterr())
        assert (given, "Traceback" in said) == (code, False), (words, said)
        return said

    external()
    told("init")
    (tmp_path / "spring.txt").write_text("Hello {{ recipient.frist_name }}\n", encoding="utf-8")
    told("template", "save", "spring", "--subject", "Hello", "--text", str(tmp_path / "spring.txt"))
    found = told("template", "check", "spring", code=1)
    assert "text line 1: 'recipient.frist_name' is unknown (did you mean first_name?)" in found
    assert "no opt-out link" in found
    (tmp_path / "spring.txt").write_text("Hello {{ recipient.first_name }} {{ links.unsubscribe }}", encoding="utf-8")
    told("template", "save", "spring", "--text", str(tmp_path / "spring.txt"))
    assert "error:" not in told("template", "check", "spring")
    shown = json.loads(told("template", "show", "spring", "--json").splitlines()[-1])
    assert (shown["subject"], shown["validity_seconds"]) == ("Hello", 432_000)
    assert "there is no delivery template 'x'" in told("template", "show", "x", code=2)
    told("template", "delete", "spring")
    assert "is not an address" in told("seed", "add", "nobody", code=2)
    told("seed", "add", "Paula@Brand.example", "--label", "Paula")
    listed = json.loads(told("seed", "list", "--json").splitlines()[-1])
    assert listed["seeds"] == [{"address": "paula@brand.example", "label": "Paula"}]
    told("seed", "remove", "paula@brand.example")
    assert "is no seed address" in told("seed", "remove", "paula@brand.example", code=2)
    verbs = [entry["verb"] for entry in json.loads(told("audit", "--json").splitlines()[-1])["audit"]]
    assert verbs == ["seed.remove", "seed.add", "template.delete", "template.save", "template.save"]
    assert "no worker" in told("delivery", "proof", "last", code=3), "nothing would carry it out"

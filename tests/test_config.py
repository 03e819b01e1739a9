"""The configuration: every problem at once, origins, environment, cross-checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from midsource import config
from midsource.model.errors import ConfigError, UserError

GOOD = """
[instances.marketing]
role = "marketing"
port = 8025
[instances.mid1]
role = "mid"
port = 8026
"""


def write(home: Path, text: str) -> Path:
    (home / config.FILE_NAME).write_text(text, encoding="utf-8")
    return home


def test_defaults_and_origins(tmp_path: Path) -> None:
    loaded = config.load(
        write(tmp_path, GOOD), {"MIDSOURCE_MID1_HELO": "mx.brand.example", "MIDSOURCE_SANDBOX_SMTP_PORT": "2600"}
    )
    assert [i.name for i in loaded.instances] == ["marketing", "mid1"]
    assert loaded.instance("mid1").transport == "sandbox", "a fresh install never mails the real world"
    assert (loaded.instance("mid1").helo, loaded.sandbox.smtp_port) == ("mx.brand.example", 2600)
    assert loaded.origin["instances.mid1.helo"] == "environment MIDSOURCE_MID1_HELO"
    assert loaded.origin["instances.mid1.port"] == "midsource.toml"
    assert loaded.origin["instances.mid1.workers"] == "default"
    assert loaded.instance().name == "marketing"
    assert loaded.instance(role="mid").name == "mid1"


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    text = """
colour = "blue"
[postgres]
mode = "oracle"
[instances.marketing]
role = "marketing"
port = "eighty"
[instances.mid1]
role = "mid"
prot = 8026
[instances."Bad Name"]
role = "mid"
[instances.noone]
port = 1
"""
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, text), {})
    told = "\n".join(caught.value.problems)
    for expected in (
        "colour: unknown section",
        "postgres.mode: expected one of embedded, external, got 'oracle'",
        "instances.marketing.port: expected int, got 'eighty'",
        "instances.mid1.prot: unknown key",
        "instances.Bad Name: expected a name",
        "instances.noone.role: expected marketing or mid, got nothing",
    ):
        assert expected in told


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("port = 8025", "instances.mid1.port: 8025 is already the port of marketing"),
        ("port = 0", "instances.mid1.port: expected 1 to 65535, got 0"),
        ("port = 8026\nworkers = 0", "instances.mid1.workers: expected 1 to 64, got 0"),
        ("port = 8026\ntransport = 'smarthost'", "instances.mid1.smarthost: expected host:port"),
        (
            "port = 8026\ndatabase_url = 'postgresql://somebody@db/mid1'",
            "instances.mid1.database_url: is used only with postgres.mode external",
        ),
        ("port = 8026\ntransport = 'pigeon'", "instances.mid1.transport: expected one of sandbox, mx, smarthost"),
    ],
)
def test_rules_across_fields(tmp_path: Path, extra: str, problem: str) -> None:
    text = f"[instances.marketing]\nrole = 'marketing'\nport = 8025\n[instances.mid1]\nrole = 'mid'\n{extra}\n"
    with pytest.raises(ConfigError, match=problem.replace("(", r"\(")):
        config.load(write(tmp_path, text), {})


def test_external_databases_need_urls(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"instances\.mid1\.database_url: expected postgresql"):
        config.load(write(tmp_path, GOOD + "[postgres]\nmode = 'external'\n"), {})


def test_a_home_without_a_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="midsource init"):
        config.load(tmp_path, {})


def test_broken_toml_is_a_sentence_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 1"):
        config.load(write(tmp_path, "= nothing"), {})


def test_an_unknown_instance_names_those_there_are(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, GOOD), {})
    with pytest.raises(UserError, match=r"instances: marketing \(marketing\), mid1 \(mid\)"):
        loaded.instance("mid2")

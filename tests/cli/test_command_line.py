"""The command line without a home: words, exit codes, sentences."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from midsource.cli.home import mask
from midsource.cli.logfile import passes, tail
from midsource.cli.main import GROUPS, global_first, run
from midsource.cli.setup import free_port, make_home
from midsource.cli.specs import process_specs
from midsource.config import load
from midsource.model.errors import UserError


def midsource(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the real command in a process of its own."""
    command = [sys.executable, "-m", "midsource", "--home", str(home), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["workflow", "list", "--role", "mid"], ["--role", "mid", "workflow", "list"]),
        (["--home=/a", "ps", "--json"], ["--home=/a", "ps", "--json"]),
        (["ps", "--debug"], ["--debug", "ps"]),
        (["logs", "x", "--", "--home", "y"], ["logs", "x", "--", "--home", "y"]),
        (["ps", "--home"], ["ps", "--home"]),
        (["operator", "add", "x", "--role", "admin"], ["operator", "add", "x", "--role", "admin"]),
        (["operator", "add", "x", "--role=admin"], ["operator", "add", "x", "--role=admin"]),
        (["operator", "list", "--role", "mid"], ["--role", "mid", "operator", "list"]),
        (["ps", "--role=admin"], ["--role=admin", "ps"]),
    ],
)
def test_global_options_may_stand_anywhere(given: list[str], expected: list[str]) -> None:
    assert global_first(given) == expected


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_every_command_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert "Usage: midsource" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["frobnicate"], 2, "No such command 'frobnicate'"),
        (["workflow", "list", "--nope"], 2, "No such option: --nope"),
        (["workflow", "list"], 2, "there is no midsource.toml"),
        (["--role", "boss", "ps"], 2, "--role 'boss' is no role"),
        (["ps"], 3, "midsource does not run in"),
        (["delivery", "create"], 2, "Missing option '--file'"),
        (["recipients", "import"], 2, "Missing argument 'file'"),
        (["operator", "add", "Bob", "--role", "reader"], 2, "'Bob' cannot name an operator"),
        (["operator", "add", "bob", "--role", "king"], 2, "'king' is no role: choose among admin"),
        (["operator", "add", "bob"], 2, "Missing option '--role'"),
        (["api-key", "add", "x", "--scope", "all"], 2, "'all' is no scope: choose among see"),
        (["audit", "--limit", "0"], 2, "--limit"),
    ],
)
def test_wrong_use_is_one_sentence_and_its_exit_code(
    words: list[str], code: int, sentence: str, tmp_path: Path
) -> None:
    done = midsource(*words, home=tmp_path)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_broken_configuration_is_told_whole(tmp_path: Path) -> None:
    (tmp_path / "midsource.toml").write_text("[instances.marketing]\nrole='boss'\nport='x'\ncolour=1\n")
    done = midsource("config", "check", home=tmp_path)
    assert done.returncode == 2
    for word in ("role: expected one of", "port: expected int", "colour: unknown key"):
        assert word in done.stderr


def test_config_show_tells_the_origin_of_each_value(tmp_path: Path) -> None:
    make_home(tmp_path, 18025)
    done = midsource("config", "show", "--json", home=tmp_path)
    shown = json.loads(done.stdout.splitlines()[-1])
    assert shown["config"]["instances.mid1.port"] == 18026
    assert shown["origin"]["instances.mid1.port"] == "midsource.toml"
    assert shown["origin"]["instances.mid1.helo"] == "default"


def test_a_home_is_made_once_and_its_processes_follow_from_it(tmp_path: Path) -> None:
    home = tmp_path / "a" / "home"
    assert make_home(home, 18025)
    assert not make_home(home, 19025)
    assert home.stat().st_mode & 0o777 == 0o700
    config = load(home, {})
    names = [spec.name for spec in process_specs(config)]
    assert sorted(names) == ["mta@mid1", "sandbox@mid1", "web@marketing", "web@mid1", "worker@marketing", "worker@mid1"]
    assert [spec.name for spec in process_specs(config, "mta@mid1", 3)] == ["mta@mid1", "mta@mid1.2", "mta@mid1.3"]
    assert len(process_specs(config, "marketing")) == 2
    with pytest.raises(UserError, match="names nothing here"):
        process_specs(config, "mta@marketing")


def test_ports_that_leave_no_room_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leaves no room"):
        make_home(tmp_path, 65534)
    assert 1024 < free_port() < 65536


def test_a_password_in_a_url_is_masked() -> None:
    assert mask("postgresql://bob:secret@db/one") == "postgresql://bob:***@db/one"
    assert mask("postgresql://db/one") == "postgresql://db/one"
    assert mask("postgresql://bob@db/one?password=secret&sslmode=require") == (
        "postgresql://bob@db/one?password=***&sslmode=require"
    )


def test_logs_are_filtered_by_level_and_text_over_rotation(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.with_name("web.log.1").write_text('{"event":"old","level":"error"}\n')
    log.write_text('{"event": "a", "level": "info"}\n{"event": "b", "level": "warning"}\n')
    assert [json.loads(line)["event"] for line in tail(log, 10, level="warning")] == ["old", "b"]
    assert len(tail(log, 1)) == 1
    assert tail(log, 10, text="old") == ['{"event":"old","level":"error"}']
    assert not passes('{"level": "info"}', "error", "")
    with pytest.raises(UserError, match="is no level"):
        tail(log, 1, level="loud")


def test_what_libraries_log_is_found_by_level() -> None:
    """In a process of its own: it sets up logging for good."""
    program = (
        "import logging; from midsource.cli.log import set_up_logging; set_up_logging('web@mid1'); "
        "logging.getLogger('some.library').warning('a \"quoted\" %s', 'word')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert passes(done.stderr.strip(), "warning", "")
    assert json.loads(done.stderr)["event"] == 'a "quoted" word'


@pytest.mark.parametrize("words", [["config", "check"], ["workflow", "list"]])
def test_a_home_that_cannot_be_read_is_one_sentence(tmp_path: Path, words: list[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    done = midsource(*words, home=file)
    assert done.returncode == 2
    assert "cannot be read (Not a directory)" in done.stderr

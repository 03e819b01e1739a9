"""Log lines: one JSON object each, with ids, and without any person's address or secret, whatever is passed on in them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.cli.masking import masked, masked_value
from midsource.cli.output import sentence_in

PROGRAM = """
import logging, threading
import structlog
from midsource.cli.log import set_up_logging
set_up_logging("mta@mid1.2")
log = structlog.get_logger()
log.info("sent", action="send", delivery=870207618809857, message=142, domain="gmail.example")
thread = threading.Thread(target=lambda: log.warning("refused", action="refuse", why="550 <anna.lee@gmail.example> unknown"))
thread.start()
thread.join()
try:
    raise ValueError("duplicate key: (mail:zoë@exämple.fr) with password=hunter2secret")
except ValueError:
    log.exception("bug", action="bug", rows=["bob@x.example", 3], about={"to": "carla@y.example"})
logging.getLogger("some.library").error("cannot reach postgresql://mid:s3cr3t-pw@db.example/one for %s", "dora@z.example")
log.debug("never", action="never")
"""


def lines() -> list[dict[str, object]]:
    """Return what a process of its own logs: setting up logging is for good."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_each_line_is_json_that_says_who_when_what_and_about_what() -> None:
    found = lines()
    assert len(found) == 4
    for line in found:
        assert {"timestamp", "level", "event", "action", "process"} <= set(line)
        assert line["process"] == "mta@mid1.2"
    assert (found[0]["delivery"], found[0]["message"]) == (870207618809857, 142)


def test_no_line_holds_a_person_or_a_secret() -> None:
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines())
    for hidden in ("anna.lee", "zoë", "bob@", "carla", "dora", "hunter2secret", "s3cr3t-pw"):
        assert hidden not in text
    assert "…@gmail.example" in text, "the domain is what a fault is about"
    assert "mta@mid1.2" in text
    assert "Traceback" in text


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("550 5.1.1 <anna@x.example>: unknown", "550 5.1.1 <…@x.example>: unknown"),
        ("mailto:anna+news@x.example?subject=a", "mailto:…@x.example?subject=a"),
        ("GET /people/anna%40x.example", "GET /people/…%40x.example"),
        ("“anna’s@sub.домен.рф” refused", "…@sub.домен.рф” refused"),
        ("worker@marketing and mta@mid1.2 and mta@mid1.10", "worker@marketing and mta@mid1.2 and mta@mid1.10"),
        ("http://127.0.0.1:8025/?token=abcDEF123-_x&lang=fr", "http://127.0.0.1:8025/?token=…&lang=fr"),
        ("postgresql://bob:secret@localhost/one", "postgresql://bob:…@localhost/one"),
        ("Authorization: Bearer 1891ac89.xfjNhQiCIey51eJ2kS5F", "Authorization: Bearer …"),
        ('{"password": "hunter2", "n": 1}', '{"password": "…", "n": 1}'),
        ("3 messages of 20 wait at gmail.example", "3 messages of 20 wait at gmail.example"),
    ],
)
def test_addresses_and_secrets_are_hidden_and_nothing_else(said: str, written: str) -> None:
    assert masked(said) == written


LOCAL = st.text(st.characters(codec="utf-8", categories=["L", "N"], include_characters=".+-_!#$%&*?^`|~'"), min_size=1)


@given(
    LOCAL, st.sampled_from(["", "<", " to: ", "(", '"', "a="]), st.sampled_from(["", ">", ")", " ", ".", ",\n", '"'])
)
def test_no_local_part_survives(local: str, before: str, after: str) -> None:
    text = masked(f"{before}{local}qzx@mail.example{after}")
    assert "qzx" not in text
    assert "@mail.example" in text


def test_values_keep_their_kind() -> None:
    assert masked_value({"n": 3, "ok": True, "none": None, "part": 1.5}) == {
        "n": 3,
        "ok": True,
        "none": None,
        "part": 1.5,
    }
    assert masked_value(("a@b.example", ["c@d.example"])) == ["…@b.example", ["…@d.example"]]
    deep: object = "e@f.example"
    for _ in range(9):
        deep = [deep]
    assert "e@" not in str(masked_value(deep))


def test_masking_takes_no_time_on_hostile_text() -> None:
    for text in ("a" * 200_000, "a@" * 100_000, "@" + "a." * 100_000, "bearer " * 30_000):
        masked(text)


def test_a_failure_that_is_told_within_another_keeps_only_its_sentence() -> None:
    line = "midsource: the database of marketing has schema none: run `midsource init`. [MS-500: docs/errors/MS-500.md]"
    assert sentence_in(line) == "the database of marketing has schema none: run `midsource init`"
    assert sentence_in("something else [MS-500]") == "something else [MS-500]"

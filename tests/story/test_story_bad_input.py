"""Bad input through the real command line: one clear sentence with the remedy, the right exit code, nothing half-done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from midsource.cli.ground import Done, Home
from midsource.cli.session import embedded
from midsource.config import FILE_NAME, load
from midsource.testing.proxy import Answer, FaultProxy, ForwardThenAnswer, Pass

LINK = "<a href='{{ links.unsubscribe }}'>out</a>"
KEY = "abcdefgh.0123456789012345678901234567890123456789"
BALLAST_BYTES_LEFT = 3_000_000
"""Left on the small disk beside the ballast: PostgreSQL works, and an import of some MB does not fit."""

Write = Callable[[str, bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file and returns its path."""

    def put(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return put


def people(home: Home) -> int:
    return home.number("marketing", "select count(*) from recipient")


# -- files of people


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no header line: it is empty: give a CSV file"),
        (b"name\nx\n", "no column names the address (columns: 'name'): call one of them email"),
        (b"email,shoe\na@gmail.example,42\n", "'shoe': --create-fields makes fields of them, --ignore-unknown leaves them out"),
        (b"\xff\xfee\0m\0a\0i\0l\0\n\0", "UTF-16"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_imported_changes_nothing(
    home: Home, write: Write, content: bytes, sentence: str
) -> None:
    before = people(home)
    done = home.run("recipients", "import", write("people.csv", content), code=2)
    assert sentence in done.sentence
    assert people(home) == before
    assert home.run("recipients", "import", "/nowhere/people.csv", code=2).sentence.count("give the path of") == 1


def test_bad_lines_are_set_aside_and_cost_no_neighbour(home: Home, write: Write) -> None:
    lines = b"external_id,email\nb1,b1@gmail.example\nb2\nb3,no-at\nb4,b4@gmail.example\n"
    told = home.json("recipients", "import", write("bad.csv", lines))
    assert (told["stored"], told["rejected"]) == (2, 2)
    rejects = Path(told["rejects_file"]).read_text(encoding="utf-8").splitlines()
    assert rejects[0] == "line,reason,raw"
    assert [line.partition(",")[0] for line in rejects[1:]] == ["3", "4"]
    assert "no @" in rejects[2]


@pytest.mark.parametrize(
    ("name", "content"),
    [("mark", b"\xef\xbb\xbfemail,first_name\nmark@gmail.example,Zo\xc3\xab\n"), ("latin", b"email,first_name\nlatin@gmail.example,Zo\xeb\n")],
)  # fmt: skip
def test_other_encodings_are_read_as_they_are(home: Home, write: Write, name: str, content: bytes) -> None:
    assert home.json("recipients", "import", write(f"{name}.csv", content))["stored"] == 1
    [person] = home.json("recipients", "show", f"{name}@gmail.example")["recipients"]
    assert person["first_name"] == "Zoë"


def test_a_line_break_in_a_name_makes_no_header(home: Home, write: Write) -> None:
    evil = b'external_id,email,first_name\nx1,evil@gmail.example,"Eve\r\nBcc: all@gmail.example"\nx2,fine@gmail.example,Fine\n'
    home.json("recipients", "import", write("evil.csv", evil), "--list", "evil")
    delivery = home.delivery("evil")
    home.run("delivery", "send", str(delivery), "--wait")
    kept = {fact["rcpt"]: fact["n"] for fact in home.truth(delivery)}
    assert set(kept) == {"evil@gmail.example", "fine@gmail.example"}
    url = f"http://127.0.0.1:{load(home.path).sandbox.http_port}/inbox/{kept['evil@gmail.example']}/raw"
    head = httpx2.get(url).text.partition("\r\n\r\n")[0].partition("\n\n")[0]
    assert "Subject: Bonjour Eve Bcc: all@gmail.example" in head
    assert not [line for line in head.splitlines() if line.lower().startswith("bcc:")]


# -- templates and orders


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"subject": "Hi {{ recipient.shoe }}"}, "subject line 1: 'recipient.shoe' is unknown"),
        ({"html": f"<p>\n{{{{ recipient.frist_name }}}}</p>{LINK}"}, "html line 2: 'recipient.frist_name' is unknown (did you mean first_name?)"),
        ({"html": f"<p>\n{{% if recipient.first_name %}}{LINK}"}, "html line 2: "),
        ({"html": "<p>nothing</p>"}, "The HTML body has no opt-out link: put {{ links.unsubscribe }} into it"),
    ],
)  # fmt: skip
def test_a_template_error_ends_the_preparation_with_its_line(
    home: Home, changes: dict[str, str], sentence: str
) -> None:
    known = home.number("marketing", "select count(*) from recipient_list where name = 'tried'")
    if not known:
        home.people("tried", [f"t{n}@gmail.example" for n in range(3)])
    delivery = home.delivery("tried", **changes)
    done = home.run("delivery", "send", str(delivery), "--wait", code=1)
    assert sentence in done.sentence
    assert "correct it and prepare the delivery again" in done.sentence
    shown = home.json("delivery", "show", str(delivery))
    assert shown["state"] == "preparation failed"
    assert any(finding["severity"] == "error" and finding["sentence"] for finding in shown["findings"])
    assert home.number("mid1", "select count(*) from message where delivery_id = %s", (delivery,)) == 0


def test_orders_that_make_no_sense_now_are_refused_with_what_is_possible(home: Home) -> None:
    home.people("ordered", ["o@gmail.example"])
    delivery = home.delivery("ordered")
    assert home.run("delivery", "pause", str(delivery), code=1).sentence.count("pause is not possible") == 1
    home.run("delivery", "stop", str(delivery))
    assert home.json("delivery", "show", str(delivery))["state"] == "stopped"
    for verb in ("prepare", "send", "resume"):
        assert f"delivery {delivery} is stopped" in home.run("delivery", verb, str(delivery), code=1).sentence


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("prepare", "1"), "there is no delivery 1: "),
        (("send", "abc"), "'abc' is no delivery number: see `midsource delivery list`"),
        (("show", "9" * 30), "is no delivery number"),
        (("logs", "1", "--state", "lost"), "'lost' is no message state"),
        (
            ("create", "--file", "/nowhere.toml"),
            "/nowhere.toml cannot be read (No such file or directory): give the path",
        ),
    ],
)
def test_wrong_ids_are_wrong_use(home: Home, words: tuple[str, ...], sentence: str) -> None:
    assert sentence in home.run("delivery", *words, code=2).sentence


# -- the other side of the link


@pytest.fixture(scope="module")
def proxy(home: Home) -> Iterator[FaultProxy]:
    """A way to the mid that answers otherwise when told to."""
    with FaultProxy(load(home.path).instance("mid1").port) as made:
        yield made


def tried(home: Home, url: str, key: str = KEY) -> Done:
    home.run("account", "add", "tried", "--url", url, "--key", key)
    return home.run("account", "test", "tried", code=1)


def test_each_wrong_mid_is_told_apart(home: Home, proxy: FaultProxy) -> None:
    key = home.run("account", "add", "storyteller", "--role", "mid").out.splitlines()[-1]
    home.run("account", "add", "tried", "--url", proxy.url, "--key", key)
    home.run("account", "test", "tried")
    assert "does not know the key of this external account" in tried(home, proxy.url).sentence
    proxy.fault = lambda _: Answer(200, body=b"<html>Welcome to nginx!</html>", content_type="text/html")
    assert "answers, but is not a mid-sourcing server" in tried(home, proxy.url, key).sentence
    hello = httpx2.get(f"{_mid(home)}/mid/v1/hello", headers=_headers(key)).json()
    other = json.dumps(hello | {"protocols": [7, 8], "version": "9.0"}).encode()
    proxy.fault = lambda _: Answer(200, body=other, content_type="application/json")
    assert "speaks protocol 7, 8, this instance 1: upgrade" in tried(home, proxy.url, key).sentence
    proxy.fault = lambda _: ForwardThenAnswer(503)
    assert "answered HTTP 503" in tried(home, proxy.url, key).sentence
    proxy.fault = lambda _: Pass()
    proxy.down()
    assert f"nobody listens at {proxy.url}: check the URL" in tried(home, proxy.url, key).sentence
    proxy.up()
    assert "there is no external account 'nobody'" in home.run("account", "test", "nobody", code=2).sentence
    assert (
        "is no address of a mid" in home.run("account", "add", "tried", "--url", "mid", "--key", key, code=2).sentence
    )


def _mid(home: Home) -> str:
    return f"http://127.0.0.1:{load(home.path).instance('mid1').port}"


def _headers(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "x-midsource-protocol": "1"}


# -- what must run and does not


@pytest.mark.slow
def test_without_a_worker_nothing_is_begun(home: Home) -> None:
    home.people("idle", ["idle@gmail.example"])
    delivery = home.delivery("idle")
    home.run("stop", "worker@marketing")
    try:
        for words in (("delivery", "prepare", str(delivery)), ("workflow", "run-now", "defaultMidSourcingLog")):
            told = home.run(*words, code=3).sentence
            assert "no worker of marketing is alive" in told
            assert "start the processes with `midsource up`" in told
        assert home.run("status", code=3).out == "missing: worker@marketing\n"
        assert home.json("delivery", "show", str(delivery))["state"] == "edited"
    finally:
        home.run("start", "worker@marketing")
    home.wait_until(lambda: home.run("status", code=None).code == 0, "everything runs", 30)
    home.run("delivery", "send", str(delivery), "--wait")


@pytest.mark.slow
def test_a_database_that_is_stopped_comes_back_by_itself(home: Home) -> None:
    assert embedded(load(home.path)).stop_now()
    assert home.json("recipients", "list", "--limit", "1")["total"] > 0, "a command starts it if nobody did"
    home.wait_until(lambda: home.run("status", code=None).code == 0, "everything runs", 60)
    home.people("after", ["after@gmail.example"])
    home.run("delivery", "send", str(home.delivery("after")), "--wait")


def test_an_external_database_that_is_down_is_one_sentence(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    home.path.mkdir()
    text = f"[postgres]\nmode = 'external'\n[instances.marketing]\nrole = 'marketing'\nport = {home.port}\n"
    text += f"database_url = 'postgresql://nobody:secret@127.0.0.1:{home.port + 3}/x'\n"
    (home.path / FILE_NAME).write_text(text)
    for words in (("recipients", "list"), ("up",), ("workflow", "list")):
        told = home.run(*words, code=3).sentence
        assert "the database of marketing cannot be reached" in told
        assert "check `midsource status`" in told
        assert "secret" not in told


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_full_disk_is_one_sentence_and_keeps_nothing_half_done(open_folder: Path) -> None:
    """A home on a small disk of its own, filled up but for some MB; with space again everything goes on."""
    disk = open_folder / "disk"
    disk.mkdir(mode=0o711)
    mount = shutil.which("mount") or "mount"
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=220m,mode=711", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"this user may not mount a small disk: {made.stderr.decode().strip()}")
    home = Home(disk / "h")
    try:
        home.init()
        file = open_folder / "many.csv"
        lines = [f"f{n},f{n}@gmail.example,{'x' * 200}" for n in range(60_000)]
        file.write_text("\n".join(["external_id,email,first_name", *lines]) + "\n")
        # Last of all: the server stays for five seconds, and would not start on a full disk.
        home.run("recipients", "list")
        ballast = disk / "ballast"
        space = os.statvfs(disk)
        ballast.write_bytes(b"\0" * (space.f_bavail * space.f_frsize - BALLAST_BYTES_LEFT))
        done = home.run("recipients", "import", str(file), code=None)
        assert done.code in (1, 3), done
        assert "the disk of the database of marketing is full: free space" in done.sentence
        ballast.unlink()
        home.wait_until(lambda: home.run("recipients", "list", code=None).code == 0, "it works again", 60)
        home.json("recipients", "import", str(file))
        assert people(home) == 60_000
    finally:
        home.end()
        subprocess.run([shutil.which("umount") or "umount", "-l", str(disk)], check=True)

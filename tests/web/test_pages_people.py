"""Recipients, lists, segments and fields in the console: found, changed, erased, as whoever may."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.web.console_scene import HOSTILE, Scene
from tests.web.console_served import Console, serving

from midsource.config import Config, InstanceConfig
from midsource.marketing import fields, lists, person, recipients, segments
from midsource.marketing.finding_people import PAGE_ROWS
from midsource.store.database import Database, scalar
from midsource.web.console.pages import people_import

EMPTY_PAGES = (
    "/recipients", "/recipients?q=x", "/recipients?q=x&by=name", "/recipients/import", "/recipients/new", "/lists", "/segments",
    "/segments/edit", "/fields",
)  # fmt: skip

IMPORT_SECONDS = 60.0


def csrf_of(page: httpx2.Response) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found is not None
    return found[1]


def send(browser: httpx2.Client, path: str, *, seen: str = "", **given: str) -> httpx2.Response:
    """Fill in the form of page ``seen`` (that of ``path`` itself if none is given) and send it."""
    form = {"csrf": csrf_of(browser.get(seen or path)), **given}
    return browser.post(path, data=form)


def test_pages_without_anybody(browser: httpx2.Client) -> None:
    for path in EMPTY_PAGES:
        for language in ("en", "fr", "pt"):
            answer = browser.get(f"{path}{'&' if '?' in path else '?'}lang={language}")
            assert answer.status_code == 200, (path, answer.text)
            assert f'<html lang="{language}"' in answer.text


@pytest.mark.usefixtures("scene")
def test_people_page_by_page_and_by_beginning(browser: httpx2.Client) -> None:
    first = browser.get("/recipients")
    assert "1,000 recipients" in first.text
    assert first.text.count('<th scope="row">') == PAGE_ROWS
    following = re.search(r'rel="next" href="([^"]+)"', first.text)
    assert following is not None
    second = browser.get(following[1].replace("&amp;", "&"))
    assert second.text.count('<th scope="row">') == PAGE_ROWS
    assert not set(re.findall(r"/recipients/(\d+)", first.text)) & set(re.findall(r"/recipients/(\d+)", second.text))
    found = browser.get("/recipients", params={"q": "PERSON10", "by": "address"})
    assert found.text.count('<th scope="row">') == 12  # 10, 100 to 109, 1000
    assert "Nobody is found" in browser.get("/recipients", params={"q": "%", "by": "name"}).text


def test_a_person_is_added_changed_and_erased(console: Console, browser: httpx2.Client, scene: Scene) -> None:
    with console.database.transaction() as conn:
        fields.add_field(conn, "city", "text")
        fields.add_field(conn, "email2", "integer")
    page = send(browser, "/recipients/new", email="Zoë@new.example", first_name=HOSTILE, **{"own:city": "Évora"})
    number = int(str(page.url).partition("?")[0].rpartition("/")[2])
    assert "The recipient is stored." in page.text
    assert HOSTILE not in page.text
    assert "&lt;script&gt;" in page.text
    assert "Évora" in page.text
    wrong = send(
        browser, f"/recipients/{number}/edit", email="no address", **{"own:email2": "many", "own:city": "Faro"}
    )
    assert wrong.status_code == 422
    assert "expected a whole number" in wrong.text
    assert 'value="Faro"' in wrong.text
    changed = send(
        browser, f"/recipients/{number}/edit", email="zoe@new.example", opted_out="yes", **{"own:city": "Faro"}
    )
    assert "opted out" in changed.text
    asked = browser.get(f"/recipients/{number}/erase")
    assert "1 recipient has this address" in asked.text
    erased = send(browser, f"/recipients/{number}/erase")
    assert "The person is erased." in erased.text
    with console.database.connection() as conn:
        assert scalar(conn, "select count(*) from recipient where id = %s", (number,)) == 0
        assert scalar(conn, "select entry from denylist") == "zoe@new.example"
        told = conn.execute("select verb, subject, detail::text from audit order by id").fetchall()
    assert [(verb, subject) for verb, subject, _ in told] == [
        ("recipient.add", str(number)), ("recipient.change", str(number)), ("recipient.erase", str(number)),
    ]  # fmt: skip
    assert "zoe" not in str(told).lower()
    assert scene.finished


def test_one_person_shows_outcomes_lists_and_what_is_held(
    console: Console, browser: httpx2.Client, scene: Scene
) -> None:
    with console.database.transaction() as conn:
        found = recipients.by_email(
            conn, "person3@" + str(scalar(conn, "select domain from recipient where external_id = '3'"))
        )
        lists.add_members(conn, lists.ensure_list(conn, f"Readers {HOSTILE}"), [found[0].id])
        conn.execute(
            "insert into quarantine (address_key, state, reason, errors, text) select email_key, 3, 1, 4, %s from recipient "
            "where id = %s",
            (f"550 {HOSTILE}", found[0].id),
        )
    page = browser.get(f"/recipients/{found[0].id}", params={"lang": "fr"})
    assert HOSTILE not in page.text
    assert "en quarantaine" in page.text
    assert "Newsletter of October" in page.text
    assert f"/deliveries/{scene.finished}" in page.text


def test_lists_are_made_filled_and_deleted(console: Console, browser: httpx2.Client, scene: Scene) -> None:
    page = send(browser, "/lists", name=f"Friends {HOSTILE}")
    path = str(page.url).partition("?")[0].removeprefix(console.address)
    assert HOSTILE not in page.text
    with console.database.connection() as conn:
        email = str(scalar(conn, "select email from recipient where external_id = '7'"))
    added = send(browser, f"{path}/add", seen=path, email=email.upper())
    assert "1 recipient" in added.text
    assert send(browser, f"{path}/add", seen=path, email="nobody@x.example").status_code == 422
    number = re.search(r'name="recipient" value="(\d+)"', added.text)
    assert number is not None
    assert "0 recipients" in send(browser, f"{path}/remove", seen=path, recipient=number[1]).text
    with console.database.transaction() as conn:
        conn.execute(
            "update delivery set target_list = (select name from recipient_list) where id = %s", (scene.edited,)
        )
    refused = send(browser, f"{path}/delete")
    assert refused.status_code == 409
    assert str(scene.edited) in refused.text
    with console.database.transaction() as conn:
        conn.execute("update delivery set target_list = null where id = %s", (scene.edited,))
    assert "The list is deleted." in send(browser, f"{path}/delete").text


@pytest.mark.usefixtures("scene")
def test_a_segment_says_whom_it_chooses_before_and_after_it_is_stored(console: Console, browser: httpx2.Client) -> None:
    condition = "domain = 'sapo.example'"
    looked = send(browser, "/segments/edit", name="Sapo", expression=condition, look="1")
    assert "166 recipients" in looked.text or "167 recipients" in looked.text
    with console.database.connection() as conn:
        assert segments.all_segments(conn) == []
    wrong = send(browser, "/segments/edit", name="Sapo", expression="domian = 'x'")
    assert wrong.status_code == 422
    assert "did you mean domain?" in wrong.text
    stored = send(browser, "/segments/edit", name="Sapo", expression=condition)
    assert "The segment is stored." in stored.text
    assert "person" in stored.text
    assert (
        "The segment is deleted."
        in send(browser, "/segments/delete", seen="/segments/delete?name=Sapo", name="Sapo").text
    )


def test_an_own_field_is_added_and_a_wrong_name_explained(browser: httpx2.Client) -> None:
    assert send(browser, "/fields", name="Ville", type="text").status_code == 422
    page = send(browser, "/fields", name="ville", type="text")
    assert "ville" in page.text


def test_what_is_not_there_is_said(browser: httpx2.Client) -> None:
    for path, status in (
        ("/recipients/99", 404),
        ("/recipients/x", 422),
        ("/recipients/99/edit", 404),
        ("/lists/99", 404),
        ("/recipients/9999999999999999999", 422),
    ):
        assert browser.get(path).status_code == status, path


def test_an_address_everybody_shares_is_erased_for_all(console: Console, browser: httpx2.Client) -> None:
    with console.database.transaction() as conn:
        one = person.save(conn, {"email": "us@home.example", "external_id": "1"}, opted_out=False)
        person.save(conn, {"email": "US@home.example", "external_id": "2"}, opted_out=False)
    assert "2 recipients have this address" in browser.get(f"/recipients/{one}/erase").text
    send(browser, f"/recipients/{one}/erase")
    with console.database.connection() as conn:
        assert scalar(conn, "select count(*) from recipient") == 0


@pytest.mark.usefixtures("scene")
def test_pasted_lines_are_imported_and_what_is_rejected_is_said(console: Console, browser: httpx2.Client) -> None:
    lines = "email,first_name,city\r\nana@x.example,Ana,Faro\r\nno address,Bea,Lyon\r\nperson1@orange.example,Cléo,\r\n"
    refused = send(browser, "/recipients/import", lines=lines, list="Pasted")
    assert refused.status_code == 422
    assert "city" in refused.text
    assert "ana@x.example" in refused.text, "what was pasted is still there"
    page = send(browser, "/recipients/import", lines=lines, list="Pasted", unknown="create")
    assert "The lines are imported." in page.text
    assert "Line 3:" in page.text
    assert "has no @" in page.text
    with console.database.connection() as conn:
        ana = recipients.by_email(conn, "ana@x.example")[0]
        assert (ana.fields, recipients.lists_of(conn, ana.id)) == ({"city": "Faro"}, ["Pasted"])
        assert scalar(conn, "select detail from audit where verb = 'recipients.import'")["rejected"] == 1
    assert list((console.home / "imports").iterdir()) == []
    assert send(browser, "/recipients/import", lines=" ").status_code == 422
    nameless = send(browser, "/recipients/import", lines='"email\nx')
    assert "the pasted text" in nameless.text
    assert str(console.home) not in nameless.text
    assert browser.get("/recipients/import", params={"stored": "1", "rejects": "../midsource.toml"}).status_code == 200


def upload(browser: httpx2.Client, content: bytes, csrf: str | None = None, **given: str) -> httpx2.Response:
    """Send a file with the form of the import page."""
    token = csrf_of(browser.get("/recipients/import")) if csrf is None else csrf
    file = {"file": ("Kunden & Freunde.csv", content, "text/csv")}
    return browser.post(
        "/recipients/import", data={"csrf": token, "lines": "", **given}, files=file, timeout=IMPORT_SECONDS
    )


def test_a_file_is_imported_and_its_rejected_lines_are_handed_out(console: Console, browser: httpx2.Client) -> None:
    lines = [f"person{n}@x.example,Zo\u00e9".encode("cp1252") for n in range(10_000)]
    page = upload(
        browser, b"email,first_name\n" + b"\n".join([*lines, b"no address,Bea", b"=cmd()@,x,y"]), list="Uploaded"
    )
    assert page.status_code == 200, page.text
    assert "The lines are imported." in page.text
    assert "10,000" in page.text
    assert "Line 10002:" in page.text
    with console.database.connection() as conn:
        assert scalar(conn, "select count(*) from list_member") == 10_000
        assert scalar(conn, "select first_name from recipient where email = 'person7@x.example'") == "Zo\u00e9"
        assert scalar(conn, "select detail from audit where verb = 'recipients.import'")["rejected"] == 2
    link = re.search(r'href="(/recipients/import/rejects[^"]+)"', page.text)
    assert link is not None
    rejects = browser.get(link[1])
    assert rejects.headers["content-disposition"].startswith("attachment")
    assert [row[:2] for row in csv.reader(io.StringIO(rejects.text))][1:] == [
        ["10002", "email: 'no address' has no @"],
        ["10003", "3 columns, the header has 2"],
    ]
    assert list((console.home / "imports").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", "../midsource.toml", "pasted-x-20260101T000000.csv", "upload-a-20260101T000000.csv/.."]
)
def test_no_other_file_is_handed_out_as_rejected_lines(console: Console, browser: httpx2.Client, name: str) -> None:
    (console.home / "midsource.toml").touch()
    assert browser.get("/recipients/import/rejects", params={"name": name}).status_code == 404


def test_what_is_wrong_with_a_file_is_said_by_the_name_it_came_with(console: Console, browser: httpx2.Client) -> None:
    refused = upload(browser, b"", list="Nobody")
    assert refused.status_code == 422
    assert "Kunden &amp; Freunde.csv has no header line" in refused.text
    assert str(console.home) not in refused.text
    assert upload(browser, b"email\na@x.example", lines="email\nb@x.example").status_code == 422
    with console.database.connection() as conn:
        assert scalar(conn, "select count(*) from recipient") == 0


def test_a_file_from_elsewhere_or_too_large_changes_nothing(
    console: Console, browser: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upload(browser, b"email\na@x.example", csrf="another").status_code == 403
    huge = b"email\n" + b"x" * people_import.MAX_FILE_BYTES
    assert upload(browser, huge).status_code == 413
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert browser.post("/recipients/import", content=b"nothing", headers=broken).status_code in (400, 415)
    monkeypatch.setattr("midsource.web.uploads.UPLOAD_SECONDS", 0.2)
    csrf = csrf_of(browser.get("/recipients/import"))

    def slowly() -> Iterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="csrf"\r\n\r\n' + csrf.encode()
        time.sleep(1)
        yield b"\r\n--x--\r\n"

    length = {
        "content-length": str(
            len(
                b"".join(
                    (b'--x\r\ncontent-disposition: form-data; name="csrf"\r\n\r\n', csrf.encode(), b"\r\n--x--\r\n")
                )
            )
        )
    }
    assert browser.post("/recipients/import", content=slowly(), headers={**broken, **length}).status_code == 408
    with console.database.connection() as conn:
        assert scalar(conn, "select count(*) from recipient") == 0


def test_pages_without_a_database_say_so(tmp_path: Path, free_port: int) -> None:
    instance = InstanceConfig("marketing", "marketing", port=free_port)
    away = "postgresql://nobody@127.0.0.1:1/nothing"
    with (
        Database("marketing", away, application="tests", wait_seconds=1) as database,
        serving(Config(tmp_path, instances=(instance,)), instance, database) as address,
        Console(tmp_path, database, address).browser() as browser,
    ):
        for path in (
            *EMPTY_PAGES,
            "/recipients/1",
            "/lists/1",
            "/templates",
            "/brands",
            "/seeds",
            "/preview?template=default",
        ):
            answer = browser.get(path)
            assert answer.status_code == 503, path
            assert "Traceback" not in answer.text

"""Templates, preview, proofs, brands, seed addresses and new deliveries in the console."""

from __future__ import annotations

import re

import httpx2
import pytest
from tests.web.console_scene import HOSTILE, Scene
from tests.web.console_served import Console
from tests.web.test_pages_people import send

from midsource.marketing import brands, deliveries, person, seeds, templates
from midsource.store.database import scalar

PAGES = (
    "/templates", "/templates/edit", "/brands", "/brands/edit", "/seeds", "/deliveries/new",
)  # fmt: skip
GOOD = {
    "subject": "Hello {{ recipient.first_name }}",
    "html": "<p>Hello {{ recipient.first_name }}</p>\r\n<img src='https://far.example/x.png'>\r\n<a href='{{ links.unsubscribe }}'>out</a>",
    "text": "Hello {{ recipient.first_name }}\r\n{{ links.unsubscribe }}",
    "validity": "2d", "retry_count": "3", "retry_period": "90min", "uncertain": "hold",
}  # fmt: skip


@pytest.fixture
def ready(console: Console, scene: Scene) -> Scene:
    """Give the scene with one named person and one seed address."""
    with console.database.transaction() as conn:
        person.save(conn, {"email": "ana@people.example", "first_name": f"Ana {HOSTILE}"}, opted_out=False)
        seeds.add_seed(conn, "seed@brand.example", "Paula")
        conn.execute("select setval('delivery_serial', 1000)")  # the scene numbers its deliveries itself
    return scene


def test_pages_without_anything(browser: httpx2.Client) -> None:
    for path in PAGES:
        for language in ("en", "fr", "pt"):
            answer = browser.get(path, params={"lang": language})
            assert answer.status_code == 200, (path, answer.text)
            assert f'<html lang="{language}"' in answer.text


def test_a_template_is_checked_stored_copied_and_deleted(
    console: Console, browser: httpx2.Client, ready: Scene
) -> None:
    bad = {**GOOD, "html": "<p>\r\n{{ recipient.frist_name }}</p>"}
    checked = send(browser, "/templates/edit", name="Spring", check="1", **bad)
    assert "html line 2: &#39;recipient.frist_name&#39; is unknown (did you mean first_name?)" in checked.text
    assert "has no opt-out link" in checked.text
    wrong = send(browser, "/templates/edit", name="Spring", **{**GOOD, "validity": "5", "retry_count": "many"})
    assert wrong.status_code == 422
    assert "5 of what?" in wrong.text
    stored = send(browser, "/templates/edit", name="Spring", **GOOD)
    assert "The template is stored." in stored.text
    with console.database.connection() as conn:
        kept = templates.get_template(conn, "Spring")
        assert (kept.html.count("\r"), kept.validity_seconds, kept.retry_period_seconds) == (0, 172_800, 5_400)
    assert send(browser, "/templates/edit", name="Spring", **GOOD).status_code == 422  # another of this name
    assert "far.example" in browser.get("/templates/edit", params={"copy": "Spring"}).text
    assert send(browser, "/templates/delete", seen="/templates/delete?name=Spring", name="default").status_code == 409
    deleted = send(browser, "/templates/delete", seen="/templates/delete?name=Spring", name="Spring")
    assert "The template is deleted." in deleted.text
    assert browser.get("/templates/edit", params={"name": "Spring"}).status_code == 404
    assert ready.edited


@pytest.mark.usefixtures("ready")
def test_a_preview_is_one_persons_message_in_a_frame_that_can_do_nothing(browser: httpx2.Client) -> None:
    send(browser, "/templates/edit", name="Spring", **GOOD)
    page = browser.get("/preview", params={"template": "Spring", "as": "ANA@people.example"})
    assert page.status_code == 200
    assert HOSTILE not in page.text
    assert "frame-src 'self'" in page.headers["content-security-policy"]
    assert "<iframe" in page.text
    assert "sandbox" in page.text
    assert "X-Midsource" not in page.text
    source = re.search(r'src="(/preview/html[^"]+)"', page.text)
    assert source is not None
    framed = browser.get(source[1].replace("&amp;", "&"))
    policy = framed.headers["content-security-policy"]
    assert "sandbox" in policy
    assert "script-src" not in policy  # default-src 'none'
    assert "img-src data:" in policy
    assert "&lt;script&gt;" in framed.text  # the data of a stranger, escaped by the template
    assert "<p>Hello Ana" in framed.text
    allowed = browser.get(f"{source[1].replace('&amp;', '&')}&images=yes")
    assert "img-src https:" in allowed.headers["content-security-policy"]
    assert browser.get("/preview", params={"template": "Spring", "as": "nobody@x.example"}).status_code == 422
    assert browser.get("/preview").status_code == 422


def test_what_cannot_be_rendered_is_said_with_its_line(console: Console, browser: httpx2.Client, ready: Scene) -> None:
    page = browser.get("/preview", params={"delivery": str(ready.running), "as": "ana@people.example"})
    assert "cannot be made" in page.text
    assert "first_name" in page.text
    with console.database.transaction() as conn:
        conn.execute("update recipient set first_name = %s where email = 'ana@people.example'", ("a" * 10,))
        conn.execute("update delivery set subject = '{{ recipient.first_name }}' where id = %s", (ready.running,))
    fine = browser.get("/preview", params={"delivery": str(ready.running), "as": "ana@people.example"})
    assert "aaaaaaaaaa" in fine.text


def test_a_proof_is_sent_from_its_page_to_chosen_seeds(console: Console, browser: httpx2.Client, ready: Scene) -> None:
    path = f"/deliveries/{ready.edited}/proof"
    nobody = send(browser, path, people="ana@people.example")
    assert nobody.status_code == 422
    assert "no seed address is chosen" in nobody.text
    sent = send(browser, path, people="ana@people.example", **{"seed:seed@brand.example": "yes"})
    assert "The proof is under way." in sent.text
    assert "Proof 1" in sent.text
    with console.database.connection() as conn:
        made = scalar(conn, "select id from delivery where proof_of = %s", (ready.edited,))
        assert scalar(conn, "select count(*) from job where kind = 'prepare' and subject = %s", (made,)) == 1
        assert scalar(conn, "select detail from audit where verb = 'delivery.proof'")["proof"] == made
    assert (
        send(
            browser, f"/deliveries/{made}/proof", seen=path, people="", **{"seed:seed@brand.example": "yes"}
        ).status_code
        == 409
    )


def test_a_brand_needs_its_senders_domain_among_the_allowed(console: Console, browser: httpx2.Client) -> None:
    given = {
        "name": "Atelier", "from_name": "Atelier", "from_address": "news@atelier.example", "reply_to": "",
        "sender_domains": "other.example", "unsubscribe_url": "https://m.example/u/{token}", "mirror_url": "",
    }  # fmt: skip
    wrong = send(browser, "/brands/edit", **given)
    assert wrong.status_code == 422
    assert "atelier.example is not among them" in wrong.text
    stored = send(browser, "/brands/edit", **{**given, "sender_domains": "Atelier.example, other.example"})
    assert "The brand is stored." in stored.text
    with console.database.connection() as conn:
        assert brands.get_brand(conn, "Atelier").sender_domains == ["atelier.example", "other.example"]
    for name, value in (("unsubscribe_url", "https://m.example/"), ("from_address", "x"), ("sender_domains", "")):
        assert send(browser, "/brands/edit", **{**given, name: value}).status_code == 422


def test_seed_addresses_come_and_go(browser: httpx2.Client) -> None:
    assert send(browser, "/seeds", address="nobody").status_code == 422
    assert "seed@x.example" in send(browser, "/seeds", address="Seed@x.example", label=HOSTILE).text
    assert HOSTILE not in browser.get("/seeds").text
    assert "seed@x.example" not in send(browser, "/seeds/remove", seen="/seeds", address="seed@x.example").text


def test_a_delivery_is_made_from_a_template_and_changed_while_nobody_else_does(
    console: Console, browser: httpx2.Client, ready: Scene
) -> None:
    send(browser, "/templates/edit", name="Spring", **GOOD)
    begun = browser.get("/deliveries/new", params={"template": "Spring"})
    assert "far.example" in begun.text
    wrong = send(
        browser, "/deliveries/new", label="", brand="default", account="defaultEmailMid", target_list="nowhere",
        target_expression="citty = 'x'", contact_at="soon", **GOOD,
    )  # fmt: skip
    assert wrong.status_code == 422
    for said in ("contact_at", "label"):
        assert f'id="{said}-problem"' in wrong.text
    made = send(
        browser, "/deliveries/new", label=f"May {HOSTILE}", brand="default", account="defaultEmailMid", template="Spring",
        target_list="", target_expression="domain = 'people.example'", contact_at="2031-05-01T09:30", **GOOD,
    )  # fmt: skip
    assert HOSTILE not in made.text
    number = int(str(made.url).partition("?")[0].rpartition("/")[2])
    with console.database.connection() as conn:
        stored = deliveries.get(conn, number)
    assert (stored.template, stored.retry_count, stored.retry_period_seconds) == ("Spring", 3, 5_400)
    assert str(stored.contact_at) == "2031-05-01 09:30:00+00:00"
    assert stored.target_expression == "domain = 'people.example'"
    path = f"/deliveries/{number}/edit"
    page = browser.get(path)
    version = re.search(r'name="version" value="(\d+)"', page.text)
    assert version is not None
    again = {"label": "June", "brand": "default", "account": "defaultEmailMid", "version": version[1], **GOOD}
    assert "The delivery is changed." in send(browser, path, **again).text
    late = send(browser, path, **again)
    assert late.status_code == 409
    assert "somebody else" in late.text
    assert browser.get(f"/deliveries/{ready.running}/edit").status_code == 409

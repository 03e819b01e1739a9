"""The pages of people and content in a real browser: at three widths, in three languages, with axe, and with no script."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, expect
from tests.web.console_axe import violations
from tests.web.console_looks import faults
from tests.web.console_scene import HOSTILE, Scene, fill
from tests.web.console_served import Console
from tests.web.console_window import HEIGHTS, signed_in

from midsource.marketing import fields, lists, person, seeds, segments, templates
from midsource.net.clock import SystemClock

HTML = "<p>Hello {{ recipient.first_name }}</p><img src='https://far.example/x.png'><a href='{{ links.unsubscribe }}'>out</a>"
PATHS = (
    "/recipients", "/recipients/import", "/recipients/{person}", "/recipients/{person}/edit", "/recipients/{person}/erase", "/lists/1",
    "/segments/edit?name=Sapo", "/fields", "/templates", "/templates/edit?name=Spring", "/brands/edit?name=default", "/seeds",
    "/preview?template=Spring&as=ana@people.example", "/deliveries/{edited}/proof", "/deliveries/new?template=Spring",
)  # fmt: skip
LANGUAGE = {390: "pt", 768: "fr", 1280: "en"}
"""Each width in another language: the longest words on the narrowest screen."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A console with people and content, and the numbers that addresses need."""

    console: Console
    scene: Scene
    person: int

    def address(self, path: str, language: str) -> str:
        """Return the address of one of ``PATHS``."""
        filled = path.format(person=self.person, edited=self.scene.edited)
        return f"{self.console.address}{filled}{'&' if '?' in filled else '?'}lang={language}"


@pytest.fixture(scope="module")
def stage(stood: Console) -> Stage:
    database = stood.database
    scene = fill(database, SystemClock().now())
    with database.transaction() as conn:
        conn.execute("select setval('delivery_serial', 1000)")
        fields.add_field(conn, "city", "text")
        fields.add_field(conn, "birth_date", "date")
        given = {
            "email": "ana@people.example",
            "first_name": f"Ana {HOSTILE}",
            "city": "Vila Nova de Gaia",
            "birth_date": "",
        }
        number = person.save(conn, given, opted_out=True)
        conn.execute("update recipient set opted_out = true where id <= 9")
        conn.execute(
            "insert into list_member select %s, id from recipient",
            (lists.ensure_list(conn, "Readers of the letter"),),
        )
        segments.create_segment(conn, "Sapo", "domain = 'sapo.example'")
        seeds.add_seed(conn, "paula.wagner@atelier.example", "Paula")
        template = templates.DeliveryTemplate(
            "Spring",
            "Hello {{ recipient.first_name }}",
            HTML,
            "{{ links.unsubscribe }}",
            [],
            5,
            3_600,
            432_000,
            "hold",
        )
        templates.save_template(conn, template)
    return Stage(stood, scene, number)


@pytest.mark.parametrize("width", HEIGHTS)
def test_pages_fit_and_are_readable(stage: Stage, chromium: Browser, width: int) -> None:
    page = signed_in(chromium, stage.console, width)
    wrong = {}
    for path in PATHS:
        answer = page.goto(stage.address(path, LANGUAGE[width]))
        assert answer is not None
        assert answer.status == 200, path
        found = faults(page) + (violations(page) if width == 768 else [])
        if found:
            wrong[path] = found
    page.context.close()
    assert wrong == {}


def test_the_frame_of_a_message_runs_nothing_and_fetches_nothing(stage: Stage, chromium: Browser) -> None:
    page = signed_in(chromium, stage.console, 1280)
    refused: dict[str, str | None] = {}
    page.on("requestfailed", lambda request: refused.update({request.url: request.failure}))
    answered: list[str] = []
    page.on("response", lambda response: answered.append(response.url))
    page.goto(stage.address("/preview?template=Spring&as=ana@people.example", "en"))
    message = page.frame_locator("iframe.mail")
    expect(message.locator("p")).to_have_text(f"Hello Ana {HOSTILE}")
    page.wait_for_load_state("networkidle")
    assert refused == {"https://far.example/x.png": "csp"}
    assert [url for url in answered if not url.startswith(stage.console.address)] == []
    page.context.close()


def test_a_delivery_is_made_and_a_proof_sent_without_scripts(stage: Stage, chromium: Browser) -> None:
    page = signed_in(chromium, stage.console, 390, scripts=False)
    page.goto(stage.address("/deliveries/new?template=Spring", "en"))
    page.get_by_label("Label").fill("May letter")
    page.get_by_label("List", exact=True).select_option(label="Readers of the letter")
    page.get_by_role("button", name="Make the delivery").click()
    expect(page.get_by_role("status").filter(has_text="The delivery is made.")).to_be_visible()
    number = page.url.partition("?")[0].rpartition("/")[2]
    page.goto(f"{stage.console.address}/deliveries/{number}/proof")
    page.get_by_label("Whose message").fill("ana@people.example")
    page.get_by_role("button", name="Send the proof").click()
    expect(page.get_by_role("link", name="Proof 1")).to_be_visible()
    page.context.close()

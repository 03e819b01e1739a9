"""Delivery templates are checked, kept by name and previewed as one person; brands that could send nothing are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from midsource.mail.checks import Severity
from midsource.marketing import brands, deliveries, fields, person, previewing, recipients, segments, templates
from midsource.marketing.brands import Brand
from midsource.marketing.delivery_file import draft_of
from midsource.model.errors import ConfigError, Conflict, NotFound, UserError
from midsource.store.database import Database, scalar
from midsource.testing.clock import ManualClock

SPRING = replace(
    templates.EMPTY, name="spring", subject="Hello {{ recipient.first_name }}",
    html="<p>{{ recipient.city }} {{ recipient.first_name }}</p>{{ links.unsubscribe }}", text="{{ links.unsubscribe }}",
)  # fmt: skip
BRAND = Brand("b", "B", "news@b.example", None, ["b.example"], "https://m.example/u/{token}")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"name": " "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"subject": "x" * 2_001}, "subject has"),
        ({"html": "x" * 500_001}, "html has"),
        ({"text": "a\0b"}, "NUL"),
        ({"retry_count": 101}, "retries"),
        ({"retry_period_seconds": 0}, "retry period"),
        ({"validity_seconds": 59}, "validity"),
    ],
)
def test_a_template_that_cannot_be_one_is_refused(ready_db: Database, changed: dict[str, object], says: str) -> None:
    with ready_db.transaction() as conn, pytest.raises(UserError, match=says):
        templates.save_template(conn, replace(SPRING, **changed))  # type: ignore[arg-type]  # one of its fields


def test_a_template_in_use_or_the_default_one_is_not_deleted(ready_db: Database, clock: ManualClock) -> None:
    with ready_db.transaction() as conn:
        templates.save_template(conn, SPRING)
        with pytest.raises(Conflict, match="default"):
            templates.delete_template(conn, "default")
        number = deliveries.create(conn, draft_of({"label": "A", "template": "spring"}), clock)
        assert deliveries.get(conn, number).subject == SPRING.subject
        with pytest.raises(Conflict, match="were made from"):
            templates.delete_template(conn, "spring")
        with pytest.raises(NotFound, match="no delivery template"):
            templates.delete_template(conn, "autumn")


def test_findings_name_the_line_and_the_field(ready_db: Database) -> None:
    with ready_db.transaction() as conn:
        found = templates.findings_of(conn, replace(SPRING, html="<p>\n{{ recipient.citty }}</p>"), BRAND)
    errors = [finding.sentence for finding in found if finding.severity is Severity.ERROR]
    assert any(sentence.startswith("html line 2: 'recipient.citty' is unknown") for sentence in errors)
    assert any("opt-out" in sentence for sentence in errors)


def test_a_preview_is_what_the_person_would_get(ready_db: Database, clock: ManualClock) -> None:
    with ready_db.transaction() as conn:
        fields.add_field(conn, "city", "text")
        given = {"email": "a@x.example", "first_name": "<b>Ana</b>", "city": "Évora"}
        ana = recipients.by_id(conn, person.save(conn, given, opted_out=False))
        own = list(fields.own_fields(conn))
    made = previewing.preview(
        templates.content_of(SPRING, BRAND), ana, own, delivery={"label": "A", "id": 1}, brand="b", now=clock.now()
    )
    assert made.is_rendered
    assert made.html.startswith("<p>Évora &lt;b&gt;Ana&lt;/b&gt;</p>https://example.invalid/")
    assert made.subject == "Hello <b>Ana</b>"
    headers = dict(made.headers)
    assert headers["To"] == "a@x.example"
    assert headers["List-Unsubscribe"] == "<https://example.invalid/unsubscribe>"
    assert 500 < made.size_bytes < 2_000
    broken = previewing.preview(
        replace(templates.content_of(SPRING, BRAND), html="{{ 1 / recipient.first_name }}"), ana, own, delivery={}, brand="b", now=clock.now()
    )  # fmt: skip
    assert not broken.is_rendered
    assert broken.findings[0].severity is Severity.ERROR


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"name": ""}, "name"),
        ({"from_name": "a\r\nBcc: x"}, "from_name"),
        ({"from_address": "news"}, "from_address"),
        ({"from_address": "news@other.example"}, "sender_domains"),
        ({"reply_to": "x y"}, "reply_to"),
        ({"sender_domains": []}, "sender_domains"),
        ({"sender_domains": ["b.example", "no domain"]}, "sender_domains"),
        ({"unsubscribe_url": "javascript:alert(1)//{token}"}, "unsubscribe_url"),
        ({"unsubscribe_url": "https://m.example/u"}, "unsubscribe_url"),
        ({"mirror_url": "https://m.example/m"}, "mirror_url"),
    ],
)
def test_a_brand_that_could_send_nothing_is_refused_by_its_field(changed: dict[str, object], field: str) -> None:
    brands.check(BRAND)
    with pytest.raises(UserError) as wrong:
        brands.check(replace(BRAND, **changed))  # type: ignore[arg-type]  # one of its fields
    assert wrong.value.cause.startswith(f"{field}: ")


def test_a_document_that_is_no_file_is_checked_as_one(ready_db: Database, clock: ManualClock) -> None:
    with pytest.raises(ConfigError) as wrong:
        draft_of({"labell": "A", "retry": {"count": "many"}, "validity": "5"}, html="a\0b")
    assert [problem.partition(":")[0] for problem in wrong.value.problems] == ["html", "labell", "label", "retry.count"]
    with ready_db.transaction() as conn:
        number = deliveries.create(conn, draft_of({"label": "A", "validity": "2d"}, html="<p>"), clock)
        version = deliveries.get(conn, number).version
        deliveries.change(conn, number, draft_of({"label": "B"}, html="<b>"), version)
        changed = deliveries.get(conn, number)
        assert (changed.label, changed.html, changed.version, changed.validity_seconds) == (
            "B",
            "<b>",
            version + 1,
            432_000,
        )
        with pytest.raises(Conflict, match="somebody else"):
            deliveries.change(conn, number, draft_of({"label": "C"}), version)


def test_a_glance_at_a_segment_of_many_is_about_right(ready_db: Database) -> None:
    with ready_db.transaction() as conn:
        conn.execute(
            "insert into recipient (key, email, email_key, domain) select 'id:' || n, n || '@' || d, n || '@' || d, d "
            "from (select n, case n % 4 when 0 then 'a.example' else 'b.example' end as d from generate_series(1, 120000) n) x"
        )
        conn.execute("analyze recipient")
        seen = segments.glance(conn, "domain = 'a.example'")
        assert seen.sampled
        assert seen.count == pytest.approx(30_000, rel=0.1)
        assert len(seen.examples) == segments.PREVIEW_ROWS
        assert segments.preview(conn, "domain = 'a.example'").count == 30_000
        conn.execute("delete from recipient where id > (select min(id) + 500 from recipient)")
        conn.execute("analyze recipient")
        assert segments.glance(conn, "domain = 'a.example'").sampled is None
        segments.create_segment(conn, "a", "domain = 'a.example'")
        segments.delete_segment(conn, "a")
        assert scalar(conn, "select count(*) from segment") == 0

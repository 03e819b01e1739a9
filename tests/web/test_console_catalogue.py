"""Three languages that say the same things, all of them, and nothing that no page asks for."""

from __future__ import annotations

import re
import string
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.doctor.supervisors import Channel
from midsource.engine.circuit import WaitsFor
from midsource.marketing import link_test
from midsource.marketing.fields import FieldType
from midsource.marketing.waiting import Cause
from midsource.model.delivery import DeliveryState
from midsource.model.finding import Severity
from midsource.model.maintenance import Level, Outcome
from midsource.model.message import MessageState, Reason
from midsource.model.options import MARKETING_OPTIONS, MID_OPTIONS
from midsource.model.technical import TECHNICAL
from midsource.model.workflow import WorkflowState
from midsource.sandbox.personalities import Kind
from midsource.security.roles import Permission, Role
from midsource.web.console.catalogue import LANGUAGES, choose, texts
from midsource.web.console.language import Words
from midsource.web.console.menu import MENU
from midsource.web.console.pages.delivery_list import STAGES
from midsource.web.console.pages.figures import SHOWN
from midsource.workflows import cleanup

PACKAGE = Path(str(files("midsource.web.console")))
LITERAL = re.compile(r"""\b(?:t|words|self|has|count)\(\s*["']([a-z_]+\.[A-Za-z0-9_-]+)["'](?!\s*~)""")
SAID: set[str] = {
    said
    for source in PACKAGE.rglob("*.py")
    for said in re.findall(r"""\bdone\([^)]*?,\s*["']([a-z_]+)["']""", source.read_text(encoding="utf-8"))
} | {
    f"{kind}_deleted"
    for source in PACKAGE.rglob("*.py")
    for kind in re.findall(r"""\bDeletion\(frame, HERE, ["']([a-z]+)["']""", source.read_text(encoding="utf-8"))
}
"""What an action may say on the page it leads to: ``done(path, "<said>")``."""
ENUMERATED = {
    "delivery_state": {str(int(state)) for state in DeliveryState},
    "message_state": {str(int(state)) for state in MessageState},
    "workflow_state": {str(int(state)) for state in WorkflowState},
    "workflow_flag": {"failed", "late"},
    "workflow_waits": {waits.value for waits in WaitsFor},
    "severity": {severity.value for severity in Severity},
    "channel": {f"{channel}{how}" for channel in Channel for how in ("", "_how")},
    "healing_outcome": {"done", "failed"},
    "maintenance_level": {level.value for level in Level},
    "maintenance_outcome": {outcome.value for outcome in Outcome},
    "forecast_kind": {"database", "relation", "disk_free", "number"},
    "cleanup_outcome": {"finished", "failed", "out_of_time", "running"},
    "cleanup_step": {step.name for role in ("marketing", "mid") for step in cleanup.steps_of(role)},
    "run_outcome": {"finished", "failed", "aborted", "running", "waiting"},
    "journal": {"warning", "error"},
    "personality": {kind.value for kind in Kind},
    "option_unit": {"calls", "rows", "retries"},
    "option_meaning": {option.name.removesuffix("_<account>") for option in (*MARKETING_OPTIONS, *MID_OPTIONS)},
    "pointer_of": {"deliveries", "logs"},
    "link_step": set(link_test.STEPS),
    "link_outcome": {outcome.value for outcome in link_test.Outcome},
    "process_state": {"running", "silent", "stopped", "waiting"},
    "process_stop": {"web", "worker", "mta", "sandbox"},
    "mid_why": {"not_sending", "no_mta", "ready", "leased", "deferred"},
    "reason": {str(int(reason)) for reason in Reason},
    "figure": {state.label for state in SHOWN},
    "verb": {"start", "pause", "resume", "stop"},
    "ago": {"s", "min", "h", "d"},
    "in": {"s", "min", "h", "d"},
    "length": {"ms", "s", "min", "h", "d"},
    "workflow_label": set(TECHNICAL),
    "nav": {entry.name for _, entries in MENU for entry in entries},
    "group": {group for group, _ in MENU},
    "role": {"marketing", "mid"},
    "said": SAID,
    "operator_role": {f"{role}{how}" for role in Role for how in ("", "_how")},
    "permission": {f"{permission}{how}" for permission in Permission for how in ("", "_how")},
    "audit_via": {"console", "api"},
    "field_type": {kind.value for kind in FieldType},
    "finding": {"error", "warning", "info"},
    "phase": {"checks", "target", "personalisation", "hand-over"},
    "delivery_tab": {"summary", "log", "trail"},
    "delivery_stage": set(STAGES) | {"any"},
    "waits": {cause.value for cause in Cause},
    "outlook": {"old", "still", "unknown"},
    "order": {"prepare", "send", "pause", "resume", "stop"},
    "moment": {"created", "confirmed", "started", "finished"},
    "trail_verb": {
        "create",
        "edit",
        "prepare",
        "proof",
        "send",
        "pause",
        "resume",
        "stop",
        "export",
        "recompute",
    },
    "job": {"prepare", "handover", "order", "under_way", "waiting", "finished", "failed", "aborted"},
    "sandbox": {"absent", "stopped", "garbled", "slow", "refuses"},
    "problem": {"403", "404", "421", "421_how", "422", "429", "500", "503", "503_how"},
}
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def asked_for() -> set[str]:
    """Return every key that pages, code and enumerations ask for."""
    sources = [*PACKAGE.rglob("*.py"), *PACKAGE.glob("templates/*.html")]
    literal = {key for source in sources for key in LITERAL.findall(source.read_text(encoding="utf-8"))}
    plural = {key for key in literal if f"{key}_one" in texts("en")}
    return (
        (literal - plural)
        | {f"{key}_{form}" for key in plural for form in ("one", "other")}
        | {f"{table}.{name}" for table, names in ENUMERATED.items() for name in names}
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_exactly_the_texts_that_are_asked_for(language: str) -> None:
    assert set(texts(language)) == asked_for()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_text_fills_in_the_same_values_in_every_language(language: str) -> None:
    def values(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    for key, text in texts(language).items():
        english = values(texts("en")[key])
        assert values(text) == english or (key.endswith("_one") and values(text) ^ english == {"n"}), key
        assert text, key


@pytest.mark.parametrize("language", ["fr", "pt"])
def test_a_translation_is_one(language: str) -> None:
    said = {key: text for key, text in texts(language).items() if not key.startswith("format.")}
    same = [key for key, text in said.items() if text == texts("en")[key] and len(text.split()) > 2]
    assert same == []


def test_the_words_of_the_field() -> None:
    french, portuguese = texts("fr"), texts("pt")
    assert (french["delivery.title"], french["log.title"]) == ("Diffusion", "Journaux de diffusion")
    assert (french["account.name"], french["workflow.title"]) == ("Compte externe", "Workflows techniques")
    assert [french[f"delivery_state.{n}"] for n in (45, 55, 75, 87)] == ["prête", "en cours", "en pause", "échec"]
    assert "quarantaine" in french["reason.9"]
    assert (portuguese["delivery.title"], portuguese["account.name"]) == ("Delivery", "Conta externa")
    assert (portuguese["workflow.title"], portuguese["workflow_flag.failed"]) == ("Workflows técnicos", "Falha")
    assert portuguese["job.aborted"] == "Abortado"
    assert (french["workflow.do_kill"], portuguese["workflow.do_kill"]) == (
        "Arrêt inconditionnel",
        "Parada incondicional",
    )


@pytest.mark.parametrize(
    ("asked", "kept", "accepted", "spoken"),
    [
        ("fr", "pt", "en", "fr"),
        ("xx", "pt", "en", "pt"),
        ("", "", "de-DE, pt-BR;q=0.9, fr;q=0.95, en;q=0.1", "fr"),
        ("", "", "fr;q=0, pt;q=oops, *;q=1", "en"),
        ("", "", "PT-pt", "pt"),
        ("../en", "<b>", "", "en"),
    ],
)
def test_choosing_a_language(asked: str, kept: str, accepted: str, spoken: str) -> None:
    assert choose(asked, kept, accepted) == spoken


@given(st.text(), st.text(), st.text())
def test_whatever_a_browser_says_a_language_is_chosen(asked: str, kept: str, accepted: str) -> None:
    assert choose(asked, kept, accepted) in LANGUAGES


def test_numbers_and_shares_as_each_language_writes_them() -> None:
    english, french, portuguese = (Words(language) for language in ("en", "fr", "pt"))
    assert [words.number(1_234_567) for words in (english, french, portuguese)] == [
        "1,234,567", "1\u202f234\u202f567", "1.234.567",
    ]  # fmt: skip
    assert [words.share(1, 3) for words in (english, french, portuguese)] == ["33.3%", "33,3\u00a0%", "33,3%"]
    assert [english.share(part, 1_000_000) for part in (0, 1, 999_999, 1_000_000)] == ["0%", "0.1%", "99.9%", "100%"]
    assert english.share(0, 0) == ""


def test_times_as_each_language_writes_them() -> None:
    at = datetime(2026, 8, 9, 7, 5, 3, tzinfo=UTC)
    assert Words("en").moment(at) == "9 Aug 2026, 07:05:03"
    assert Words("fr").moment(at) == "9 août 2026, 07:05:03"
    assert Words("pt").moment(at) == "9 de ago. de 2026, 07:05:03"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s ago"),
        (-90, "90 s ago"),
        (-120, "2 min ago"),
        (-7_300, "2 h ago"),
        (-200_000, "2 d ago"),
        (240, "in 4 min"),
    ],
)
def test_how_far_away_a_moment_is(seconds: int, said: str) -> None:
    assert Words("en").apart(NOW + timedelta(seconds=seconds), NOW) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.004, "4 ms"),
        (0.0001, "1 ms"),
        (2.41, "2.4 s"),
        (60, "1 min"),
        (3_600, "1 h"),
        (432_000, "5 d"),
        (129_600, "36 h"),
    ],
)
def test_lengths_of_time(seconds: float, said: str) -> None:
    assert Words("en").length(seconds) == said


def test_one_and_many() -> None:
    assert [Words("en").count("sandbox.held", n) for n in (0, 1, 2)] == [
        "0 messages held", "1 message held", "2 messages held",
    ]  # fmt: skip
    assert Words("fr").count("sandbox.held", 0) == "0 message reçu"

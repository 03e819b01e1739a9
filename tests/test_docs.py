"""The documentation against the code: complete, with links that lead somewhere, and true wherever that can be checked."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from midsource.cli import reference, reference_commands
from midsource.config import load
from midsource.marketing.delivery_file import DeliveryFile, Recurrence, Retry, Sender, Target, Wave, read_delivery_file
from midsource.marketing.link_journal import Method
from midsource.model.options import MARKETING_OPTIONS, MID_OPTIONS
from midsource.workflows import WORKFLOWS

ROOT = Path(__file__).parent.parent
DOCS = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
]
GUIDE = ROOT / "docs" / "operator-guide.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_MACHINE = re.compile(r"(?<![\w.~>/])/(?:home|root|work|Users|mnt|private)/[\w.-]+")
_CODE = re.compile(r"`(?:src/midsource/)?((?:\w+/)+\w+\.(?:py|sql|toml)|tests/[\w/]+\.py)`")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("name", sorted(reference.PAGES))
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), f"docs/reference/{name} is out of date: run `make docs` and commit it"


def test_no_reference_page_is_left_over() -> None:
    assert {path.name for path in (ROOT / "docs" / "reference").iterdir()} == set(reference.PAGES)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as the usual hosts of Markdown make them."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCS, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for match in _LINK.finditer(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        link = match[1] or match[2]
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", DOCS, ids=ids)
def test_code_that_is_named_exists(page: Path) -> None:
    named = {match[1] for match in _CODE.finditer(page.read_text(encoding="utf-8"))}
    assert [
        name for name in sorted(named) if not any((base / name).exists() for base in (ROOT, ROOT / "src/midsource"))
    ] == []


@pytest.mark.parametrize("page", [*DOCS, *sorted((ROOT / "docs").rglob("*.svg"))], ids=ids)
def test_no_page_names_a_machine_or_a_registry(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert _MACHINE.findall(text) == []
    assert re.findall(r"https?://[\w.-]*(?:pypi|registry|artifactory|nexus|mirror)[\w.-]*", text) == []


def test_every_command_is_in_the_operator_guide() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    missing = [
        words
        for words, command in reference_commands.commands()
        if not getattr(command, "commands", None) and f"midsource {words}" not in guide
    ]
    assert missing == []


def test_every_option_workflow_and_method_is_in_the_operator_guide() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    wanted = [option.name for option in (*MARKETING_OPTIONS, *MID_OPTIONS)]
    wanted += [module.NAME for module in WORKFLOWS]
    wanted += [str(method) for method in Method]
    assert [name for name in wanted if name not in guide] == []


def blocks(page: Path, language: str) -> Iterator[str]:
    """Yield the fenced blocks of one language."""
    for match in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        yield match[1]


def test_the_delivery_file_of_the_guide_is_read_and_has_every_key(tmp_path: Path) -> None:
    text = next(block for block in blocks(GUIDE, "toml") if "[target]" in block)
    for name in ("newsletter.html", "newsletter.txt"):
        (tmp_path / name).write_text("{{ links.unsubscribe }}", encoding="utf-8")
    path = tmp_path / "delivery.toml"
    path.write_text(text, encoding="utf-8")
    assert read_delivery_file(path).document.label
    table = tomllib.loads(text)
    assert set(table) == set(DeliveryFile.__struct_fields__) - {"recurrence"}  # such a file has no contact date
    recurring = next(
        block
        for block in blocks(GUIDE, "toml")
        if "[recurrence]" in block and "label" in block and "[wave]" not in block
    )
    assert set(tomllib.loads(recurring)["recurrence"]) == set(Recurrence.__struct_fields__)
    path.write_text(recurring, encoding="utf-8")
    assert read_delivery_file(path).document.recurrence
    for section, kind in (("sender", Sender), ("retry", Retry), ("wave", Wave)):
        assert set(table[section]) == set(kind.__struct_fields__)
    guide = GUIDE.read_text(encoding="utf-8")
    assert [key for key in Target.__struct_fields__ if f"`target.{key}`" not in guide] == []


def test_the_configuration_of_the_guide_is_accepted(tmp_path: Path) -> None:
    configurations = [block for block in blocks(GUIDE, "toml") if "[instances." in block]
    assert configurations
    for text in configurations:
        (tmp_path / "midsource.toml").write_text(text, encoding="utf-8")
        assert load(tmp_path, {}).instances


def test_every_invariant_names_where_it_is_enforced_and_tested() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", text, re.MULTILINE)
    assert [number for number, _ in rows] == [str(number) for number in range(1, 11)]
    assert [number for number, row in rows if "`tests/" not in row] == []


def test_the_tests_named_for_the_invariants_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", ARCHITECTURE.read_text(encoding="utf-8"))
    assert named
    missing = [
        f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_every_bound_named_in_the_architecture_has_that_value() -> None:
    rows = re.findall(
        r"^\|[^|]+\| ([\d ]+)[^|]*\| `([A-Z_]+)` in `([\w/]+)\.py` \|$",
        ARCHITECTURE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) > 20
    wrong = []
    for shown, name, module in rows:
        value = getattr(importlib.import_module("midsource." + module.replace("/", ".")), name)
        if float(shown.replace(" ", "")) != float(value):
            wrong.append((module, name, shown, value))
    assert wrong == []

"""Each error code has a page of its own, and the messages on it are those the product prints."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import midsource
from midsource.cli import reference, reference_commands

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "errors"
SOURCE = Path(midsource.__file__).parent
HEADINGS = ["Environment", "Symptoms", "Cause", "Resolution"]
LEAST_WORDS = 12
"""Of one section: less is a heading with an excuse."""
LEAST_LETTERS = 10
"""Letters that a message must share with the words in the code; what is filled in does not count."""
CODE = re.compile(r"MS-\d{3}")
SILENT = {"MS-000"}
"""The base of all errors: nothing prints it on purpose."""


def codes() -> list[str]:
    """Return every code the product has: of its error classes, and those written beside a sentence."""
    found = {kind.code for kind in reference.error_classes()}
    for path in SOURCE.rglob("*.py"):
        found |= {word for node in ast.walk(parsed(path)) if CODE.fullmatch(word := literal(node))}
    return sorted(found)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def literal(node: ast.AST) -> str:
    """Return the text that a node is; "" for anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def sections(code: str) -> dict[str, str]:
    """Return the sections of a page by heading, in their order."""
    text = (PAGES / f"{code}.md").read_text(encoding="utf-8")
    pieces = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def shown(code: str) -> list[str]:
    """Return the messages of a page, line by line."""
    blocks = re.findall(r"^```text\n(.*?)^```", sections(code)["Symptoms"], re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("code", codes())
def test_each_code_has_a_page_with_its_four_headings_filled(code: str) -> None:
    assert (PAGES / f"{code}.md").exists(), f"write docs/errors/{code}.md"
    found = sections(code)
    assert list(found) == HEADINGS
    assert [heading for heading, text in found.items() if len(re.sub(r"\W+", " ", text).split()) < LEAST_WORDS] == []


def test_no_two_errors_choose_the_same_code() -> None:
    chosen: dict[str, str] = {}
    for kind in reference.error_classes():
        if "code" in vars(kind):
            assert kind.code not in chosen, f"{kind.__name__} and {chosen[kind.code]} are both {kind.code}"
            chosen[kind.code] = kind.__name__


def test_the_index_names_every_code() -> None:
    assert {kind.code for kind in reference.error_classes()} | set(reference.SPOKEN) == set(codes())


def test_no_page_is_left_over() -> None:
    assert sorted(path.stem for path in PAGES.glob("MS-*.md")) == codes()


def test_no_two_pages_say_the_same() -> None:
    said: dict[str, str] = {}
    for code in codes():
        for heading in ("Cause", "Resolution"):
            text = " ".join(sections(code)[heading].split())
            assert text not in said, f"{code} says the same as {said.get(text)}"
            said[text] = code


@pytest.mark.parametrize("code", codes())
def test_a_page_names_commands_that_exist(code: str) -> None:
    commands = {words for words, _ in reference_commands.commands()}
    groups = {words.split()[0] for words in commands if " " in words}
    text = (PAGES / f"{code}.md").read_text(encoding="utf-8")
    named = re.findall(r"`midsource ([a-z][a-z-]*(?: [a-z][a-z-]*)?)", text)
    wanted = [words if words.split()[0] in groups else words.split()[0] for words in named]
    assert [words for words in wanted if words not in commands] == []


@pytest.mark.parametrize("code", [code for code in codes() if code not in SILENT])
def test_the_messages_of_a_page_are_those_of_the_product(code: str) -> None:
    patterns = list(said_with(code))
    lines = shown(code)
    assert lines, "show the message as it appears"
    wrong = []
    for line in lines:
        said = spoken(line, code)
        if said is not None and not any(re.fullmatch(pattern, said) for pattern in patterns):
            wrong.append(said)
    assert wrong == [], "no place in the code says this"


def spoken(line: str, code: str) -> str | None:
    """Return what a line says without its form; None for a line of a journal. It must carry its own code."""
    if line.startswith("{"):
        body = json.loads(line)
        assert body["code"] == code
        return str(body["cause"]) + (f": {body['remedy']}." if body["remedy"] else ".")
    if line.startswith("midsource: "):
        match = re.fullmatch(r"midsource: (.+) \[(MS-\d{3}): docs/errors/(MS-\d{3})\.md\]", line)
        assert match, f"not as the command line prints it: {line}"
        assert match[2] == match[3] == code
        return match[1]
    return None if re.match(r"[A-Z]\w+ part \d", line) else line + ("" if line.endswith(".") else ".")


@dataclass(frozen=True, slots=True)
class Source:
    """What of the product's source says something: calls by name, classes, and tuples."""

    calls: dict[str, list[ast.Call]]
    classes: list[ast.ClassDef]
    tuples: list[ast.Tuple]


@cache
def source() -> Source:
    """Read the product once: every message is looked for in all of it."""
    found = Source({}, [], [])
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(parsed(path)):
            match node:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
                    found.calls.setdefault(name, []).append(node)
                case ast.ClassDef():
                    found.classes.append(node)
                case ast.Tuple():
                    found.tuples.append(node)
    return found


def said_with(code: str) -> Iterator[str]:
    """Yield a pattern for each sentence that the code says with ``code``, names and figures left open."""
    names = {kind.__name__ for kind in reference.error_classes() if kind.code == code}
    for node in source().classes:
        if node.name in names:
            inits = (
                call for call in ast.walk(node) if isinstance(call, ast.Call) and "__init__" in ast.dump(call.func)
            )
            yield from (pattern for call in inits if (pattern := sentence(call.args)))
    for pair in source().tuples:
        if pair.elts and literal(pair.elts[0]) == code:
            yield sentence(pair.elts[1:]) or ""
    for name in names | ({"_unreached"} if "LinkFailure" in names else set()):
        for call in source().calls.get(name, []):
            yield sentence(call.args) or ""
            yield from (pattern for argument in call.args if (pattern := sentence([argument], inside=True)))
    yield from beside(code)


def beside(code: str) -> Iterator[str]:
    """Yield what is said where the code stands as an argument: ``Problem(code=…)`` and ``say_error(…, code)``."""
    for call in (call for name in ("Problem", "say_error") for call in source().calls.get(name, [])):
        named = {word.arg: word.value for word in call.keywords}
        if "code" in named and code_of(named["code"]) == code:
            yield sentence([named[word] for word in ("cause", "remedy") if word in named]) or ""
        if len(call.args) == 2 and literal(call.args[1]) == code:
            yield worded(call.args[0])


def code_of(node: ast.expr) -> str:
    """Return the code that an argument names: as a text, or as ``SomeError.code``."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return next((kind.code for kind in reference.error_classes() if kind.__name__ == node.value.id), "")
    return literal(node)


def sentence(arguments: list[ast.expr], *, inside: bool = False) -> str | None:
    """Return the pattern of cause and remedy; None where the words in the code are too few to prove anything."""
    if not arguments:
        return None
    cause = worded(arguments[0])
    remedy = worded(arguments[1]) if len(arguments) > 1 else ""
    if len(re.sub(r"\W|\\.|\.\+", "", cause + remedy)) < LEAST_LETTERS:
        return None
    if inside:
        return f"(.+: )?{cause}\\."
    return f"{cause}(: {remedy})?\\." if remedy else f"{cause}\\."


@cache
def constants() -> dict[str, str]:
    """Return the texts that modules keep under a name of their own, as patterns."""
    found: dict[str, str] = {}
    for path in SOURCE.rglob("*.py"):
        for node in parsed(path).body:
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                found |= {name.id: re.escape(node.value.value) for name in node.targets if isinstance(name, ast.Name)}
    return found


def worded(node: ast.expr) -> str:
    """Return the pattern of a text: its words as they are, ``.+`` for what is filled in."""
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(worded(piece) for piece in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return worded(node.left) + worded(node.right)
    if isinstance(node, ast.IfExp):
        return f"({worded(node.body)}|{worded(node.orelse)})"
    if isinstance(node, ast.List):
        return "; ".join(worded(piece) for piece in node.elts)
    if isinstance(node, ast.Name) and node.id in constants():
        return constants()[node.id]
    return ".*"

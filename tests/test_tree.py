"""The tree tells the story: sizes, docstrings, and where the system may be touched."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import midsource

SOURCE = Path(midsource.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_fits_in_the_head_and_a_function_on_a_screen(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert text.count("\n") <= MAX_FILE_LINES
    assert ast.get_docstring(tree), "a module says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            assert size <= MAX_FUNCTION_LINES, f"{node.name} has {size} lines"


def test_the_environment_is_read_in_one_place() -> None:
    readers = [path for path in MODULES if "os.environ" in path.read_text(encoding="utf-8")]
    assert [path.name for path in readers] == ["config.py"]

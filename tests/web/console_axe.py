"""axe-core on a page as it stands: what somebody with a screen reader or without a mouse would stumble over.

The rules are those of WCAG 2 A and AA and the best practices. The script is put in through the browser's own protocol, so
the console's policy, which admits no foreign script, stays what it is.
"""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it ships none
from playwright.sync_api import Page

OPTIONS = {
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
}
MAX_NODES = 3
"""Places named of one violation."""


def violations(page: Page) -> list[str]:
    """Return what axe finds wrong with the page, one sentence a rule, with the first places."""
    found: dict[str, Any] = Axe().run(page, options=OPTIONS).response
    assert found["testEngine"]["name"] == "axe-core"
    return [_sentence(violation) for violation in found["violations"]]


def _sentence(violation: dict[str, Any]) -> str:
    places = [node["html"][:160] for node in violation["nodes"][:MAX_NODES]]
    return f"{violation['id']} ({violation['impact']}): {violation['help']}: {places} of {len(violation['nodes'])}"

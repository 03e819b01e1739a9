"""The page about the API: every operation and every shape of the document, in three languages, without a script."""

from __future__ import annotations

import httpx2
import pytest
from tests.web.console_served import Console

from midsource.web.api.app import PATH
from midsource.web.console.catalogue import LANGUAGES, texts


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_the_whole_document(console: Console, browser: httpx2.Client, language: str) -> None:
    page = browser.get(f"{PATH}/docs", params={"lang": language}).text
    document = browser.get(f"{PATH}/openapi.json").json()
    assert texts(language)["api.about"].partition("`")[0] in page
    for path, item in document["paths"].items():
        for method in item:
            assert f"<b>{method.upper()}</b> {path}</code>" in page
    for name in document["components"]["schemas"]:
        assert f'id="{name}"' in page or name == "Asked" or f"#{name}" not in page


def test_strangers_see_neither_page_nor_document(console: Console) -> None:
    with httpx2.Client(base_url=console.address, trust_env=False) as stranger:
        assert stranger.get(f"{PATH}/docs").status_code == 401
        assert stranger.get(f"{PATH}/openapi.json").status_code == 401

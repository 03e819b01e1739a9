"""Every module of a technical workflow says of itself what the one table says of it."""

from __future__ import annotations

from types import ModuleType

import pytest

from midsource.model import schedule
from midsource.model.technical import TECHNICAL, label
from midsource.web.console.catalogue import LANGUAGES, texts
from midsource.workflows import WORKFLOWS


@pytest.mark.parametrize("module", WORKFLOWS, ids=lambda module: str(module.NAME))
def test_a_module_has_the_name_label_schedule_and_roles_of_the_table(module: ModuleType) -> None:
    one = TECHNICAL[module.NAME]
    assert (one.label, one.schedule, one.roles) == (module.LABEL, module.SCHEDULE, module.ROLES)
    assert module.__doc__
    assert callable(module.run_once)


def test_every_default_schedule_is_one_and_names_are_registered_once() -> None:
    for one in TECHNICAL.values():
        assert str(schedule.parse(one.schedule)) == one.schedule
        assert label(one.name) == one.label
    assert len({module.NAME for module in WORKFLOWS}) == len(WORKFLOWS)
    assert label("somethingElse") == ""


def test_every_label_is_there_in_each_language_of_the_console() -> None:
    for one in TECHNICAL.values():
        said = {texts(language)[f"workflow_label.{one.name}"] for language in LANGUAGES}
        assert "" not in said

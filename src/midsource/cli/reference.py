"""The reference pages, written from the code itself: commands, options, configuration, errors, states, metrics.

    python -m midsource.cli.reference docs/reference

Each page is a pure function of what is imported; ``main`` writes them all. A test compares them with the committed
files, so a command, an option, a key, an error or a state cannot be added without its line in the reference.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import pkgutil
import re
import sys
import tokenize
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args, get_type_hints

import midsource
from midsource.cli.reference_commands import cli_page
from midsource.cli.reference_page import HEAD, page, table
from midsource.cli.reference_states import states_page
from midsource.config import EgressConfig, InstanceConfig, PostgresConfig, SandboxConfig
from midsource.doctor.checks import CHECKS
from midsource.doctor.look import UNREACHABLE
from midsource.doctor.treatments import TREATMENTS
from midsource.model import schedule
from midsource.model.errors import MidsourceError
from midsource.model.finding import CLEAN_LOOKS, FAILED
from midsource.model.metrics import METRICS
from midsource.model.technical import TECHNICAL
from midsource.store.options import OptionTable
from midsource.web.console.catalogue import LANGUAGES
from midsource.web.option_tables import table_of
from midsource.workflows import WORKFLOWS

FILE_RULES = (
    "The file stands in the home folder. An environment variable wins over the file. Unknown keys are refused, and all "
    "problems are reported at once: `midsource config check`. `midsource config show --origin` says where each value "
    "in force comes from. Secrets are never here: they are files in `keys/`.\n"
)
SPOKEN = {
    "MS-121": "the router: the address takes other methods (HTTP 405)",
    "MS-190": "the command line: you interrupted it (exit 130)",
    "MS-432": "the console: a host name that is not this instance's (HTTP 421)",
}
"""Codes that are said in one place, without an error that travels."""
ERROR_RULES = (
    "Every failure is one sentence (cause, then remedy), then its code and its page. Each page has Environment, Symptoms, "
    "Cause and Resolution. The exit code is the command's, the HTTP status the web process's.\n"
)
METRIC_RULES = (
    "`GET /metrics` of the web process of each instance, as Prometheus text. It wants the header `Authorization: Bearer KEY`: an "
    "API key with the scope `metrics`, or the home's `keys/console.token`. What is read from the database is kept for five seconds. See "
    "[observability](../operator-guide.md#observability).\n"
)
CHECK_RULES = (
    "`midsource doctor` runs them at once, the technical workflow `doctor` every five minutes on each instance. A *finding* is what a check sees "
    "about one subject; it opens, changes and closes by itself, after {looks} clean looks in a row. `--only` takes a check or a family (`pointer`). "
    "Severity: the worst it says. F numbers are those of known failures of the reference system. See "
    "[the operator guide](../operator-guide.md#doctor).\n"
)
CHECK_MORE = (
    "Two findings come from no check: `{failed}` (a check could not look; its findings stay as they are) and `{unreachable}` (the instance's "
    "database does not answer; only the command can say that).\n"
)
WORKFLOW_RULES = (
    "Schedules are in UTC until an operator names a zone: `midsource workflow schedule NAME 'daily at 04:00, 16:00' --zone "
    "Europe/Paris`. In the hour that a clock change skips, what was due is due once, right after it; in the hour that comes twice, "
    "once; only what is due in every hour goes on through both. See "
    "[the operator guide](../operator-guide.md#technical-workflows).\n"
)
LEFT_OUT = ("midsource.testing", "midsource.store.migrations", "midsource.__main__")
"""Modules that hold no error of the product, or that run when they are imported."""


def options_page() -> str:
    """Return every option with default, unit, bounds and meaning."""
    return (
        f"{HEAD}# Options\n\n`midsource option list`, `option get NAME`, `option set NAME VALUE`; on a mid with `--role mid`. "
        "A delay is written with its unit (`3600s`, `90min`, `36h`, `5d`); without one it is refused. Names that end in "
        "`<account>` exist once for each external account and are *pointers*: see "
        "[the operator guide](../operator-guide.md#options-and-pointers).\n\n"
        f"## Of a marketing instance\n\n{_options(table_of('marketing'))}\n## Of a mid\n\n{_options(table_of('mid'))}"
    )


def _options(options: OptionTable) -> str:
    rows = [
        (f"`{o.name}`", f"`{o.default}`" if o.default else "none", o.unit, options.bounds(o.name), o.description)
        for o in options.known
    ]
    return table(("name", "default", "unit", "bounds", "meaning"), rows)


def config_page() -> str:
    """Return every key of ``midsource.toml`` with its environment variable and meaning."""
    parts = [
        "# Configuration: `midsource.toml`\n",
        FILE_RULES,
        "`MIDSOURCE_HOME` names the home folder (default `./.midsource`).\n",
    ]
    for title, prefix, kind in (
        ("[postgres]", "POSTGRES", PostgresConfig),
        ("[sandbox]", "SANDBOX", SandboxConfig),
        ("[egress]", "EGRESS", EgressConfig),
        ("[instances.NAME]", "NAME", InstanceConfig),
    ):
        rows = [
            (f"`{key}`", f"`MIDSOURCE_{prefix}_{key.upper()}`", said or f"Required: {_values(kind, key)}")
            for key, said in comments(kind)
            if key != "name"  # the title of the section
        ]
        parts += [f"## `{title}`\n", " ".join((kind.__doc__ or "").split()) + "\n"]
        parts.append(table(("key", "environment", "meaning"), rows))
    return page(parts)


def _values(kind: type, key: str) -> str:
    return " or ".join(map(str, get_args(get_type_hints(kind)[key])))


def comments(kind: type) -> list[tuple[str, str]]:
    """Return (field, trailing comment) of a class's annotated fields, as its source has them."""
    source = inspect.getsource(kind)
    said: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            said[token.start[0]] = token.string.lstrip("# ")
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    found = []
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            found.append((node.target.id, " ".join(said[line] for line in lines if line in said)))
    return found


def errors_page() -> str:
    """Return every error class with its code, exit code, HTTP status and docstring."""
    rows = [
        (
            f"[{kind.code}](../errors/{kind.code}.md)",
            f"`{kind.__name__}`",
            str(kind.exit_code),
            str(kind.http_status),
            first_sentences(kind),
        )
        for kind in error_classes()
    ]
    spoken = [(f"[{code}](../errors/{code}.md)", said) for code, said in SPOKEN.items()]
    return page([
        "# Errors\n",
        ERROR_RULES,
        table(("code", "name", "exit", "HTTP", "meaning"), rows),
        "Codes without a class of their own:\n",
        table(("code", "said by"), spoken),
    ])  # fmt: skip


def error_classes() -> list[type[MidsourceError]]:
    """Import the product and return every error class that has a code of its own, by code and name."""
    for module in pkgutil.walk_packages(midsource.__path__, "midsource.", onerror=lambda _: None):
        if not module.name.startswith(LEFT_OUT):
            importlib.import_module(module.name)
    found: set[type[MidsourceError]] = set()
    queue: list[type[MidsourceError]] = [MidsourceError]
    while queue:
        kind = queue.pop()
        queue += kind.__subclasses__()
        if kind.__module__.startswith("midsource.") and not kind.__module__.startswith(LEFT_OUT):
            found.add(kind)
    return sorted(found, key=lambda kind: (kind.code, kind.__name__))


def first_sentences(kind: type) -> str:
    """Return the class docstring on one line."""
    return " ".join((kind.__doc__ or "").split()).replace("``", "`")


def metrics_page() -> str:
    """Return every figure of ``/metrics``."""
    rows = [
        (f"`{m.name}`", m.kind, ", ".join(f"`{label}`" for label in m.labels), m.unit, str(m.where), m.meaning)
        for m in METRICS
    ]
    return page([
        "# Metrics\n",
        METRIC_RULES,
        table(("name", "type", "labels", "unit", "instances", "meaning"), rows),
    ])  # fmt: skip


def checks_page() -> str:
    """Return every check of the doctor."""
    rows = [
        (
            f"`{check.name}`",
            " and ".join(check.roles),
            str(check.worst),
            ", ".join(check.answers),
            "hourly" if check.every_seconds else "each look",
            check.looks_at,
            check.remedy,
            _treatment(check.name),
        )
        for check in CHECKS
    ]
    return page([
        "# Checks of the doctor\n",
        CHECK_RULES.format(looks=CLEAN_LOOKS),
        table(("check", "instances", "severity", "answers", "looks", "what it looks at", "remedy", "the doctor can"), rows),
        CHECK_MORE.format(failed=FAILED, unreachable=UNREACHABLE),
    ])  # fmt: skip


def workflows_page() -> str:
    """Return the technical workflows with their labels, and how schedules are written."""
    built = {module.NAME for module in WORKFLOWS}
    rows = [
        (
            f"`{one.name}`",
            *(one.label_in(language) for language in LANGUAGES),
            ", ".join(one.roles),
            one.schedule,
            one.does if one.name in built else f"{one.does} (not built yet)",
        )
        for one in TECHNICAL.values()
    ]
    forms = re.findall(r"^    (.+?)(?:   +.*)?$", schedule.__doc__ or "", re.MULTILINE)
    return page([
        "# Technical workflows\n",
        WORKFLOW_RULES,
        table(("internal name", *LANGUAGES.values(), "where", "default schedule", "does"), rows),
        "## Forms of a schedule\n",
        "\n".join(f"- {form}" for line in forms for form in (f"`{one.strip()}`" for one in line.split("·"))),
    ])  # fmt: skip


def _treatment(check: str) -> str:
    """Say what the doctor can do, whether by itself, and whether that can be undone."""
    found = TREATMENTS.get(check)
    if found is None:
        return ""
    return (
        found.does.replace(" {subject}", "").strip()
        + (" (by itself" if found.is_safe else " (`--heal`")
        + (")" if found.undo is None else "; `--undo` gives it back)")
    )


PAGES: Mapping[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "options.md": options_page,
    "config.md": config_page,
    "errors.md": errors_page,
    "states.md": states_page,
    "metrics.md": metrics_page,
    "checks.md": checks_page,
    "workflows.md": workflows_page,
}


def main(folder: Path) -> None:
    """Write every page into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in PAGES.items():
        (folder / name).write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

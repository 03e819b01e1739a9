"""Runs rounds in homes: a home serves HOME_ROUNDS rounds, or until a round has findings; then another one is made.

Rounds are told apart: a finding of one does not spoil the next, and the logs of a home with findings are kept beside
the report.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from tests.crash.plan import RoundPlan
from tests.crash.progress import Eye
from tests.crash.rounds import LIST, Round, forget_copies, perform

from midsource.cli.ground import Home
from midsource.cli.session import serving
from midsource.config import load
from midsource.mid import dkim_keys
from midsource.model.errors import Failed
from midsource.security import keys

HOME_ROUNDS = 25
"""Half a million messages: the databases of a home stay below a gigabyte."""
UP_TRIES = 3
DOMAINS = ("gmail", "orange", "outlook", "sapo", "laposte", "free", "yahoo", "gmx")
"""Providers of the sandbox that take everything: whatever is lost or doubled is our doing."""


def run(
    plans: Sequence[RoundPlan], people: int, keep: Path, done: Callable[[Round], None], kind: type[Home] = Home
) -> None:
    """Do these rounds; ``done`` gets each one as it ends. Logs of homes with findings are copied into ``keep``."""
    left = list(plans)
    while left:
        with new_home(people, kind) as home:
            for plan in left[:HOME_ROUNDS]:
                left.pop(0)
                eye = Eye(home)
                try:
                    result = perform(home, eye, plan, people)
                finally:
                    eye.close()
                done(result)
                if result.findings:
                    shutil.copytree(home.path / "log", keep / f"round-{plan.number}", dirs_exist_ok=True)
                    break
                forget_copies(home)


@contextmanager
def new_home(people: int, kind: type[Home] = Home) -> Iterator[Home]:
    """Make a home that runs, with so many people on a list; it is ended and removed."""
    folder = Path(tempfile.mkdtemp(prefix="midsource-crash-", dir="/tmp"))
    folder.chmod(0o711)  # root's PostgreSQL runs as another user, and lives inside it
    home = kind(folder / "h")
    try:
        home.init()
        _sign_quickly(home)
        _up(home)
        home.people(LIST, [f"p{n}@{DOMAINS[n % len(DOMAINS)]}.example" for n in range(people)])
        yield home
    finally:
        home.end()
        shutil.rmtree(folder, ignore_errors=True)


def _sign_quickly(home: Home) -> None:
    """Replace the RSA key by an Ed25519 one: it signs ten times as fast, and half of a round was signing."""
    with serving(load(home.path)) as urls:
        assert urls.use is not None
        with psycopg.connect(urls.use.dsn("mid1")) as conn:
            [(domain, selector)] = conn.execute("select domain, selector from dkim_key").fetchall()
            dkim_keys.create(conn, keys.load(home.path), domain, selector, "ed25519")


def _up(home: Home) -> None:
    """Start a home; on a machine that is very busy its processes may take longer than `up` waits for them."""
    for _ in range(UP_TRIES - 1):
        try:
            home.up()
        except Failed:
            home.run("down", code=None)
        else:
            return
    home.up()

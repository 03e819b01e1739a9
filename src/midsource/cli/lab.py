"""`lab history|chaos`: years of logs, and minutes of faults, to prove in a place of your own what is promised.

Neither touches a mid that mails the real world: `history` refuses one whose transport is not the sandbox, `chaos` makes
a home of its own and removes it.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from midsource.bench.lab import chaos_report, history
from midsource.bench.lab.chaos import Chaos, Outcome
from midsource.bench.lab.clock import LabClock
from midsource.bench.lab.faults import Faults
from midsource.bench.lab.plan import plan
from midsource.bench.machine import family, must_be_readable
from midsource.cli.ground import Home
from midsource.cli.group import group
from midsource.cli.output import err, say, say_json
from midsource.cli.session import Session, serving
from midsource.marketing import accounts
from midsource.model.errors import Conflict, Failed, UserError
from midsource.net.clock import SystemClock
from midsource.store.database import Database, scalar
from midsource.supervise.places import HomeFiles
from midsource.supervise.state import State
from midsource.testing.full_disk import FullDisk, disk, ways
from midsource.testing.proxy import FaultProxy

PEOPLE, MINUTES = 20_000, 10.0
DISK_MEGABYTES = 3_000
LIST = "everybody"
DOMAINS = ("gmail", "orange", "outlook", "sapo", "laposte", "free", "yahoo", "gmx")
"""Providers of the sandbox that take everything: whatever is lost or doubled is our doing."""

app = group("Years of logs and minutes of faults, for drills and proofs.")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command("history")
def make_history(
    ctx: typer.Context,
    deliveries: Annotated[int, typer.Option(min=1, help="How many deliveries.")] = 5_000,
    rows: Annotated[int, typer.Option(min=1, help="Messages in all.")] = 2_000_000,
    since: Annotated[str, typer.Option(help="The first month, as a date.")] = "2020-01-01",
    json: Json = False,
) -> None:
    """Write years of deliveries into both halves of this home, their results never fetched, pointers at the beginning."""
    session: Session = ctx.obj
    config = session.config()
    here, there = config.instance(role="marketing"), config.instance(role="mid")
    if there.transport != "sandbox":
        raise Conflict(
            f"{there.name} mails by {there.transport}", "the lab works beside a sandbox only: use another home"
        )
    try:
        begins = datetime.fromisoformat(since).replace(tzinfo=UTC)
    except ValueError as exc:
        raise UserError(f"{since!r} is no date", "write --since 2020-01-01") from exc
    with (
        serving(config) as urls,
        Database(here.name, urls(here), application="lab") as marketing,
        Database(there.name, urls(there), application="lab") as mid,
    ):
        with mid.connection() as conn:
            account = scalar(conn, "select id from account where active order by id limit 1")
        if account is None:
            raise Conflict(f"{there.name} has no account", "run `midsource init` there")
        told = history.History(deliveries, rows, begins)
        with err.status("") as status:
            written = history.make(
                marketing, mid, accounts.DEFAULT_NAME, account, told, SystemClock().now(), status.update
            )
    if json:
        say_json({"deliveries": deliveries, "rows": written, "since": begins})
    else:
        say(
            f"{written} rows of {deliveries} deliveries since {begins:%Y-%m-%d}; both pointers stand at their beginning"
        )


@app.command()
def chaos(
    minutes: Annotated[float, typer.Option(min=0.2, max=600, help="How long faults come.")] = MINUTES,
    seed: Annotated[int, typer.Option(min=0, help="Repeat a run; default: drawn and printed.")] = 0,
    people: Annotated[int, typer.Option(min=10, max=1_000_000, help="Of each delivery.")] = PEOPLE,
    report: Annotated[Path, typer.Option(help="Markdown; JSON and picture beside it.")] = Path("chaos-report.md"),
    json: Json = False,
) -> int:
    """Send through link cuts, kills, restarts, clock jumps, full disks and 408s; then account for everybody. Exit 1 on a finding."""
    must_be_readable()
    if not report.absolute().parent.is_dir():
        raise UserError(f"there is no folder {report.absolute().parent}", "make it, or give another --report")
    seed = seed or random.SystemRandom().randrange(1, 1_000_000)
    outcome = Outcome(seed, people)
    say(f"seed {seed}: {minutes:g} minutes, {people} people, report in {report}")
    with _scene(people) as (home, faults):
        Chaos(home, faults, SystemClock(), outcome, LIST, say).run(plan(seed, minutes * 60), minutes * 60)
        if outcome.findings:
            kept = report.with_suffix(".logs")
            shutil.copytree(home.path / "log", kept, dirs_exist_ok=True)
            say(f"the logs are kept in {kept}")
    chaos_report.write(outcome, report)
    if json:
        say_json(chaos_report.as_dict(outcome))
    else:
        say(f"seed {seed}: {len(outcome.happened)} faults, {outcome.accounted} messages accounted for, "
            f"{outcome.uncertain} named uncertain, {len(outcome.findings)} findings")  # fmt: skip
    return 1 if outcome.findings else 0


@contextmanager
def _scene(people: int) -> Iterator[tuple[Home, Faults]]:
    """Give a home that runs on a disk of its own, its clock and its link in our hands; everything is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="midsource-chaos-", dir="/tmp"))
    folder.chmod(0o711)  # root's PostgreSQL runs as another user, and lives inside it
    place = folder / "d"
    place.mkdir(mode=0o711)
    clock = LabClock(folder)
    home = Home(place / "h", clock.env)
    try:
        with disk(ways()[0], place, DISK_MEGABYTES, lambda: _processes(home)) as full:
            home.init()
            (folder / "sandbox").mkdir()
            (home.path / "sandbox").symlink_to(folder / "sandbox")  # the world's disk is not ours
            home.up()
            home.people(LIST, [f"p{n}@{DOMAINS[n % len(DOMAINS)]}.example" for n in range(people)])
            with FaultProxy(_mid_port(home)) as link:
                home.rows("marketing", "update external_account set url = %s", (link.url,))
                faults = Faults(home, link, clock, full)
                try:
                    yield home, faults
                finally:
                    _release(full, home)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _release(full: FullDisk, home: Home) -> None:
    full.free()
    home.end()


def _mid_port(home: Home) -> int:
    found = [
        int(url.rpartition(":")[2].strip("/")) for (url,) in home.rows("marketing", "select url from external_account")
    ]
    if len(found) != 1:
        raise Failed("the home has not one external account", "report it")
    return found[0]


def _processes(home: Home) -> list[int]:
    """Return who writes to the home's disk: the supervisor, PostgreSQL's holder, and all below them but the sandbox."""
    running = home.running()
    pids = [*family(home.pid("supervisor")), *family(State.read(HomeFiles(home.path)).holder)]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and pid != running.get("sandbox@mid1")]

"""`demo`: both halves, a sandbox, sample people and one real delivery, with live progress and a summary that must hold.

It makes the home where there is none, starts what does not run, and leaves the instances running with the address of the
console (``--once`` stops what it started). It may be repeated in one home. The summary is read from the tables and from
what the sink holds; sums that do not hold are a failure, told by name.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import httpx2
import msgspec
import typer

from midsource.cli.follow import Progress, follow
from midsource.cli.group import group
from midsource.cli.launching import await_ready, joins_running, launch
from midsource.cli.output import err, out, say, say_json, say_table
from midsource.cli.recipients import import_with_progress
from midsource.cli.running import down
from midsource.cli.session import Opened, Session
from midsource.cli.setup import DEFAULT_PORT, console_address, free_port, make_home, set_up
from midsource.config import FILE_NAME, Config
from midsource.marketing import deliveries, orders, sample
from midsource.marketing.importing import ImportResult
from midsource.model.delivery import DeliveryState
from midsource.model.errors import Bug, Failed
from midsource.model.message import MessageState
from midsource.net.clock import SystemClock
from midsource.store.database import scalar

TRUTH_SECONDS = 60
MAX_PEOPLE = 10_000_000

app = group()


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of everybody, with the names of the command line's contract; None: not built yet."""

    delivery: int
    recipients: int
    rejected: int
    targeted: int
    excluded: int
    handed_over: int
    sent: int
    failed: int
    deferred: int
    uncertain: int
    cancelled: int
    pending: int
    sandbox_received: int
    uncertain_received: int
    opens: int | None
    clicks: int | None
    marketing_logs_synced: int
    seconds: float
    seconds_prepare: float
    seconds_send: float

    def broken(self) -> list[str]:
        """Return the sums that do not hold, each as a sentence."""
        ended = self.sent + self.failed + self.deferred + self.uncertain + self.cancelled + self.pending
        sums = {
            "targeted = handed over + excluded": self.targeted == self.handed_over + self.excluded,
            "handed over = sent + failed + deferred + uncertain + cancelled + pending": ended == self.handed_over,
            "nothing is pending": self.pending == 0,
            "the sink holds what was sent, and the uncertain ones it took": self.sandbox_received
            == self.sent + self.uncertain_received,
        }
        return [name for name, holds in sums.items() if not holds]


@app.command()
def demo(
    ctx: typer.Context,
    recipients: Annotated[int, typer.Option(min=1, max=MAX_PEOPLE, help="How many sample people.")] = 10_000,
    once: Annotated[bool, typer.Option("--once", help="Stop everything at the end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
    port: Annotated[int, typer.Option(help="First of four ports in a row; default: the first free ones.")] = 0,
) -> None:
    """Send one real delivery through both halves into a sandbox, and leave the console running."""
    session: Session = ctx.obj
    began = time.monotonic()
    config = _home(session, port)
    was_up = joins_running(session)
    _databases(config)
    child = None if was_up else launch(session)
    try:
        with session.open("marketing") as opened:
            imported = _people(opened, recipients)
            if child is not None:
                await_ready(session, child)
            summary = _deliver(opened, recipients, imported, began)
    finally:
        if once and not was_up:
            down(ctx)
    _tell(summary, config, session, once=once, json=json)


def _home(session: Session, port: int) -> Config:
    if not (session.home / FILE_NAME).exists():
        make_home(session.home, port or free_port(DEFAULT_PORT))
    config = session.config()
    sandboxed = [i for i in config.instances if i.role == "mid" and i.transport == "sandbox"]
    if not sandboxed:
        raise Failed("no mid of this home sends into the sandbox, and a demo mails nobody real", "use another --home")
    return config


def _databases(config: Config) -> None:
    with err.status("preparing databases"):
        for line in set_up(config):
            err.print(line, markup=False, style="dim")


def _people(opened: Opened, count: int) -> ImportResult:
    folder = opened.config.home / "demo"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"recipients-{count}.csv"
    with err.status(f"inventing {count} people"):
        sample.write_sample(path, count)
    return import_with_progress(opened, path, list_name=_list_name(count), create_fields=True)


def _list_name(count: int) -> str:
    return f"demo {count}"


def _deliver(opened: Opened, count: int, imported: ImportResult, began: float) -> Summary:
    clock = SystemClock()
    folder = opened.config.home / "demo"
    path = sample.write_sample_delivery(folder, account="defaultEmailMid", list_name=_list_name(count))
    with opened.database.transaction() as conn:
        number = deliveries.create_from_toml(conn, path, clock)
        orders.order(conn, number, "start", by="demo", now=clock.now())
    prepare_began = time.monotonic()
    follow(opened.database, number, lambda now: now.state >= DeliveryState.START_PENDING)
    send_began = time.monotonic()
    now = follow(opened.database, number, lambda now: now.is_over)
    ended = time.monotonic()
    with opened.database.connection() as conn:
        synced = scalar(conn, "select count(*) from broad_log where delivery_id = %s and revision > 0", (number,))
        members = scalar(
            conn,
            "select count(*) from list_member m join recipient_list l on l.id = m.list_id where l.name = %s",
            (_list_name(count),),
        )
    received = _truth(opened, number)
    seconds = (ended - began, send_began - prepare_began, ended - send_began)
    return _summary(now, imported, members, synced, received, _uncertain_ids(opened, number), seconds)


def _summary(
    now: Progress,
    imported: ImportResult,
    members: int,
    synced: int,
    received: set[str],
    uncertain: set[str],
    seconds: tuple[float, float, float],
) -> Summary:
    row, counts = now.delivery, now.counts
    return Summary(
        delivery=row.id,
        recipients=members,
        rejected=imported.rejected,
        targeted=row.targeted or 0,
        excluded=row.excluded or 0,
        handed_over=row.handed_over or 0,
        sent=counts.get(MessageState.SENT, 0),
        failed=counts.get(MessageState.FAILED, 0),
        deferred=counts.get(MessageState.DEFERRED, 0),
        uncertain=counts.get(MessageState.UNCERTAIN, 0),
        cancelled=counts.get(MessageState.CANCELLED, 0),
        pending=counts.get(MessageState.PENDING, 0),
        sandbox_received=len(received),
        uncertain_received=len(received & uncertain),
        opens=None,
        clicks=None,
        marketing_logs_synced=synced,
        seconds=round(seconds[0], 2),
        seconds_prepare=round(seconds[1], 2),
        seconds_send=round(seconds[2], 2),
    )


def _truth(opened: Opened, delivery_id: int) -> set[str]:
    """Return the ids of the distinct messages of this delivery that the sink holds, as it tells them itself."""
    url = f"http://127.0.0.1:{opened.config.sandbox.http_port}/truth.ndjson"
    found: set[str] = set()
    try:
        with httpx2.stream("GET", url, params={"delivery": str(delivery_id)}, timeout=TRUTH_SECONDS) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if line:
                    fact: dict[str, Any] = msgspec.json.decode(line)
                    found.add(str(fact["id"]).rpartition(".")[2])
    except httpx2.HTTPError as exc:
        raise Failed(f"the sandbox does not say what it holds ({exc})", "see `midsource logs sandbox@mid1`") from exc
    return found


def _uncertain_ids(opened: Opened, delivery_id: int) -> set[str]:
    with opened.database.connection() as conn:
        rows = conn.execute(
            "select id from broad_log where delivery_id = %s and state = %s",
            (delivery_id, MessageState.UNCERTAIN),
        )
        return {str(number) for (number,) in rows}


def _tell(summary: Summary, config: Config, session: Session, *, once: bool, json: bool) -> None:
    hidden = {"seconds_prepare", "seconds_send", "uncertain_received", "opens", "clicks"}
    values = asdict(summary)
    target = err if json else out
    if not json:
        say_table(("", "count"), [(k.replace("_", " "), str(v)) for k, v in values.items() if k not in hidden])
    target.print(
        f"prepared and handed over in {summary.seconds_prepare} s, sent and logged in {summary.seconds_send} s",
        markup=False,
    )
    if not once:
        target.print(f"console: {console_address(config)}", markup=False)
        target.print(f"stop everything with: midsource --home {session.home} down", markup=False)
    broken = summary.broken()
    if json:
        say_json(values | {"sums_hold": not broken})
    if broken:
        raise Bug(f"sums do not hold: {'; '.join(broken)}", "please report it with the summary")
    if not json:
        say("every sum holds: everybody is accounted for")

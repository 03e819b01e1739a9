"""What the doctor can do about findings: one treatment a check, and whether it is safe to do without asking.

A treatment does what an operator would do by the command that the remedy names, through the same functions. *Safe* are those that
only ask for work that was due anyway, or make what is missing: the workflow does them by itself. The others change what
somebody may have meant, and are done by `doctor --heal` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from midsource.doctor.facts import Facts
from midsource.engine import admin, jobs, records
from midsource.marketing import accounts, pointers
from midsource.marketing.standing import OPTION_OF, WORKFLOW_OF
from midsource.mid import counters, feed, recovery
from midsource.model.delivery import DeliveryState
from midsource.model.errors import Conflict, Failed
from midsource.model.finding import Finding
from midsource.security.roles import Visitor
from midsource.store import budget, migrate, options, processes
from midsource.store.database import Connection, Database, scalar
from midsource.store.maintenance import actions
from midsource.store.maintenance import status as upkeep_status

TURNS = 100
"""Turns of numbering in one treatment: 100 000 batches."""
FOLDS = 400
"""Turns of folding in one treatment: 200 000 tallies, some seconds."""
IDLE_FOR = timedelta(minutes=5)
MAINTENANCE = "databaseMaintenance"


@dataclass(frozen=True, slots=True)
class Surgery:
    """What a treatment works with, and for whom."""

    database: Database
    facts: Facts
    by: Visitor


@dataclass(frozen=True, slots=True)
class Done:
    """What a treatment did. ``undo``: what undoing needs; None: it cannot be undone."""

    what: str
    before: str = ""
    after: str = ""
    undo: Mapping[str, Any] | None = None


Act = Callable[[Connection, Surgery, Finding], Done]
Undo = Callable[[Connection, Surgery, Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True)
class Treatment:
    """How findings of one check are mended. ``does``: what it would do, for a dry run. ``final``: why it cannot be undone."""

    check: str
    does: str
    act: Act
    is_safe: bool
    final: str = ""
    undo: Undo | None = None
    is_apart: bool = False
    """It has transactions of its own, and is written down after them: repeating it does no harm."""


def restart(conn: Connection, surgery: Surgery, finding: Finding) -> Done:
    """Abort what is unfinished of a workflow, clear flag and back-off, and ask for a run."""
    name = finding.subject
    for stream, workflow in WORKFLOW_OF.items():
        if name.startswith(OPTION_OF[stream]):
            name = workflow  # the finding is about its pointer
    row = records.get(conn, name)
    if not row.state.is_on_schedule:
        raise Conflict(
            f"{name} is {row.state.label}: somebody holds it", f"`midsource workflow start {name}` where that is over"
        )
    run = admin.restart(conn, name, surgery.by.name, surgery.facts.clock.now())
    before = f"{row.state.label}{', failed' if row.failed else ''}, {row.consecutive_failures} failures in a row"
    return Done(f"restarted {name}", before, f"run {run} is asked for")


def make_pointer(conn: Connection, surgery: Surgery, finding: Finding) -> Done:
    """Make a missing pointer before the oldest result not pulled."""
    for stream, prefix in OPTION_OF.items():
        if finding.subject.startswith(prefix):
            account = finding.subject.removeprefix(prefix)
            lanes = pointers.open_lanes(conn, account, stream, surgery.facts.clock.now(), _unsaid)
            return Done(f"made {finding.subject}", "missing", lanes.backlog.shown)
    raise Failed(f"{finding.subject} is no pointer", "see `midsource option list`")


def _unsaid(level: str, line: str) -> None:
    """Say nothing: the healing itself is written down."""


def show_option(conn: Connection, surgery: Surgery, finding: Finding) -> Done:
    """Let an option show again where its pointer really stands; what was written by hand is kept for undoing."""
    stream, account = next(
        (stream, finding.subject.removeprefix(prefix))
        for stream, prefix in OPTION_OF.items()
        if finding.subject.startswith(prefix)
    )
    row = conn.execute(
        "select p.shown, o.value, p.reached_at from pointer p left join option o on o.name = %s "
        "where p.account = %s and p.stream = %s and p.lane = 'backlog' for update of p",
        (finding.subject, account, stream),
    ).fetchone()
    if row is None:
        raise Conflict(f"{finding.subject} has no pointer", "heal pointer.missing first")
    shown, written, _ = row
    if written == shown:
        raise Conflict(
            f"{finding.subject} lies in the future", f"set it: `midsource option set {finding.subject} TIME`"
        )
    options.write(conn, finding.subject, shown, by=surgery.by.name)
    return Done(
        f"{finding.subject} shows its pointer again", str(written), shown, {"name": finding.subject, "value": written}
    )


def write_option_back(conn: Connection, surgery: Surgery, undo: Mapping[str, Any]) -> str:
    """Write again what stood in the option; the next run takes it as written by hand."""
    if undo["value"] is None:
        conn.execute("delete from option where name = %s", (undo["name"],))
        return f"{undo['name']} is deleted again"
    options.write(conn, undo["name"], undo["value"], by=surgery.by.name)
    return f"{undo['name']} is {undo['value']!r} again"


def switch_on(conn: Connection, _surgery: Surgery, finding: Finding) -> Done:
    """Switch an external account on."""
    accounts.set_active(conn, finding.subject, active=True)
    return Done(f"switched the account {finding.subject} on", "off", "on", {"account": finding.subject})


def switch_off(conn: Connection, _surgery: Surgery, undo: Mapping[str, Any]) -> str:
    """Switch the account off again."""
    accounts.set_active(conn, undo["account"], active=False)
    return f"the account {undo['account']} is off again"


def ask_for_step(conn: Connection, surgery: Surgery, finding: Finding) -> Done:
    """Ask for the job that takes a delivery on from where it stands."""
    number = int(finding.subject)
    state = DeliveryState(scalar(conn, "select state from delivery where id = %s", (number,)) or 0)
    kinds = {
        DeliveryState.TARGET_READY: "prepare",
        DeliveryState.PERSONALISATION: "prepare",
        DeliveryState.MESSAGE_FINALISED: "handover",
    }
    kind = "order" if finding.check == "delivery.orders" else kinds.get(state)
    if kind is None:
        raise Conflict(f"delivery {number} is {state.label} by now", "look again")
    job = jobs.ask(conn, kind, number, surgery.by.name)
    return Done(f"asked for {kind} of delivery {number}", state.label, f"job {job}")


def take_back(_conn: Connection, surgery: Surgery, finding: Finding) -> Done:
    """Recover what a dead mta process left: from its journal exactly, else its messages are uncertain."""
    owner = finding.subject
    with surgery.database.connection() as conn:
        if owner in processes.alive_executors(conn, "mta"):
            raise Conflict(f"{owner} lives", "nothing is taken from a living process")
    found = recovery.of_dead(surgery.database, surgery.facts.journals, owner, surgery.facts.clock)
    after = (
        f"{found.outcomes} outcomes recorded, {found.uncertain} messages uncertain, {found.released} batches given back"
    )
    return Done(f"recovered what {owner} left", "its leases and journal were held by nobody", after)


def number_batches(_conn: Connection, surgery: Surgery, _finding: Finding) -> Done:
    """Give numbers to feed batches, as serving a feed does."""
    numbered = 0
    for _ in range(TURNS):
        turn = feed.take_turn(surgery.database, surgery.facts.clock.now())
        numbered += turn or 0
        if not turn:  # nothing left, or another process is at it
            break
    return Done("numbered feed batches", "", f"{numbered} numbered")


def fold_tallies(_conn: Connection, surgery: Surgery, _finding: Finding) -> Done:
    """Fold tallies into the totals."""
    folded = 0
    for _ in range(FOLDS):
        with surgery.database.transaction() as conn:
            done = counters.fold(conn)
        folded += done
        if not done:
            break
    return Done("folded tallies into the totals", "", f"{folded} folded")


def make_partitions(conn: Connection, surgery: Surgery, finding: Finding) -> Done:
    """Make the partitions that should be there ahead of time."""
    migrate.ensure_partitions(conn, surgery.facts.instance.role, surgery.facts.clock.now())
    return Done("made the partitions ahead", finding.evidence, "all are there")


def order_upkeep(conn: Connection, surgery: Surgery, finding: Finding) -> Done:
    """Ask maintenance for the actions that are due for a relation, at once and whatever the hour."""
    status = upkeep_status.read(conn, surgery.facts.clock.now())
    steps = [replace(step, why_not="") for step in status.steps if finding.subject.endswith(f" {step.relation}")]
    if not steps:
        raise Conflict(f"nothing is due for {finding.subject} by now", "look again")
    if status.settings.advises:
        raise Conflict("maintenance only advises here", "`midsource maintenance status` has the SQL for the DBA")
    ids = actions.ask(conn, steps, surgery.by.name)
    run = admin.run_now(conn, MAINTENANCE, surgery.by.name)
    return Done(
        f"ordered {', '.join(step.act for step in steps)} of {steps[0].relation}", "", f"actions {ids}, run {run}"
    )


def end_session(conn: Connection, _surgery: Surgery, finding: Finding) -> Done:
    """End a session of ours that idles in a transaction for more than five minutes: nobody will go on with it."""
    application, _, pid = finding.subject.rpartition(" ")
    kind = application.partition("@")[0]
    if kind not in budget.BUDGET and kind not in ("cli", "leader"):
        raise Conflict(f"{application} is none of ours", f"ask whose it is, then `select pg_terminate_backend({pid})`")
    ended = scalar(
        conn,
        "select pg_terminate_backend(pid) from pg_stat_activity where pid = %s and application_name = %s "
        "and datname = current_database() and state like 'idle in transaction%%' and xact_start < clock_timestamp() - %s::interval",
        (int(pid), application, IDLE_FOR),
    )
    if not ended:
        raise Conflict(f"{application} ({pid}) does not idle in a transaction any more", "look again")
    return Done(
        f"ended the session of {application} ({pid})", "idle in a transaction", "gone; its transaction is rolled back"
    )


_RUN = "a run that was asked for is not taken back; `midsource workflow stop` ends it"
_JOB = "a job that was asked for is not taken back; `midsource delivery pause` or `stop` holds the delivery"
_NOTHING = "it only did what was due"

TREATMENTS: Mapping[str, Treatment] = {
    one.check: one
    for one in (
        Treatment("workflow.failed", "restart the workflow {subject}", restart, is_safe=False, final=_RUN),
        Treatment("workflow.late", "restart the workflow {subject}", restart, is_safe=True, final=_RUN),
        Treatment("workflow.never", "restart the workflow {subject}", restart, is_safe=True, final=_RUN),
        Treatment("pointer.stuck", "restart the workflow that moves {subject}", restart, is_safe=False, final=_RUN),
        Treatment("pointer.missing", "make {subject} before the oldest result not pulled", make_pointer, is_safe=True, final=_NOTHING),
        Treatment("pointer.option", "let {subject} show its pointer again", show_option, is_safe=False, undo=write_option_back),
        Treatment("account.off", "switch the account {subject} on", switch_on, is_safe=False, undo=switch_off),
        Treatment("delivery.stuck", "ask for the next step of delivery {subject}", ask_for_step, is_safe=True, final=_JOB),
        Treatment("delivery.parts", "ask for the hand-over of delivery {subject}", ask_for_step, is_safe=True, final=_JOB),
        Treatment("delivery.orders", "ask for the order of delivery {subject}", ask_for_step, is_safe=True, final=_JOB),
        Treatment("lease.expired", "take back what {subject} had leased; its messages without outcome are uncertain", take_back,is_safe=False, is_apart=True, final="what is uncertain stays so until somebody knows better"),
        Treatment("journal.pending", "replay the journal of {subject}", take_back, is_safe=True, is_apart=True, final=_NOTHING),
        Treatment("feed.unnumbered", "number the batches", number_batches, is_safe=True, is_apart=True, final=_NOTHING),
        Treatment("feed.unfolded", "fold the tallies", fold_tallies, is_safe=True, is_apart=True, final=_NOTHING),
        Treatment("database.partitions", "make the partitions", make_partitions, is_safe=True, final="partitions without rows do no harm"),
        Treatment("database.upkeep", "order maintenance of {subject}", order_upkeep, is_safe=False, final=_NOTHING),
        Treatment("database.transactions", "end the session {subject}", end_session, is_safe=False, final="its transaction is rolled back"),
    )
}  # fmt: skip
"""By check. What is not here has no treatment: its remedy is an operator's."""

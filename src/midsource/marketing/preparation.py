"""The preparation job: from an edited delivery to stored parts, in slices that may be cut anywhere.

Order of events, each one transaction, the state telling where the next slice goes on:

1. *edited*: checks on content, times and target (`findings`); one statement writes log rows, exclusions and totals (`targeting`) →
2. *target ready* →
3. *personalisation*: people are read in pages; the first example of each shape of data is rendered; parts are cut and
   stored, some at a time, until none is left; the parts must hold exactly the people the log says →
4. *message finalised*, and the ``handover`` job is asked for.

An error found on the way is stored with every other finding, moves the delivery to *preparation failed*, and is raised as
PreparationFailed. Re-preparation is ordered by `deliveries.start_preparation`, which removes what an earlier one left.
Every write is fenced by the delivery's version: an order given meanwhile makes this slice start over from the tables.

Durable: each finished step; a part from the moment its transaction ends. Times of the phases add up in
``delivery.phases`` over slices, with the statements that took longest; a phase at under a third of its usual pace is named
in the journal, with its slowest statement and the state of the tables behind it (`slow_phases`).
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from midsource.engine.work import SLICE_SECONDS, Context, JobKind, Report
from midsource.mail.checks import Finding, Severity
from midsource.mail.template import fields_used
from midsource.marketing import deliveries, findings, options, parts, proofs, slow_phases, targeting
from midsource.marketing.deliveries import Delivery
from midsource.marketing.phases import StatementTimes, add_phase
from midsource.marketing.trial import Trial
from midsource.model.delivery import DeliveryEvent, DeliveryState
from midsource.model.errors import Conflict, Failed
from midsource.policy import checks
from midsource.store.database import Connection

PARTS_AT_ONCE = 5
"""Parts of one transaction: 10 000 people, well under a second."""
SLICE_SHARE = 0.75
"""Part of a slice's time after which it ends by itself: the page in hand still has to be stored."""
MAX_FINDINGS = 100
"""Findings kept with a delivery: an author corrects the first ones first."""
SPOKEN_ERRORS = 10
MAX_ERROR_CHARS = 2_000
"""What a person reads at once; every finding is stored besides."""
ASKED_NEXT = ("handover",)
REMEDY = "correct it and prepare the delivery again"


class PreparationFailed(Failed):
    """The delivery cannot be sent as it is; every finding is stored with it."""

    code = "MS-320"


def prepare(context: Context) -> Report:
    """Do one slice of the preparation of delivery ``context.subject``."""
    with context.database.transaction() as conn:
        delivery = deliveries.get(conn, context.subject)
    state = DeliveryState(delivery.state)
    if state is DeliveryState.PREPARATION_FAILED:
        raise PreparationFailed(delivery.error.removesuffix("."), REMEDY)
    if state is DeliveryState.EDITED:
        _check_and_target(context, delivery)
        return Report(more_after_seconds=0, note="target ready")
    if state is DeliveryState.TARGET_READY:
        with context.database.transaction() as conn:
            deliveries.transition(conn, delivery.id, DeliveryEvent.PERSONALISE)
        return Report(more_after_seconds=0, note="personalisation")
    if state is DeliveryState.PERSONALISATION:
        return _Personalisation(context, delivery).run()
    if state is DeliveryState.MESSAGE_FINALISED:
        return Report(then=ASKED_NEXT, note="prepared already")
    return Report(note=f"nothing to prepare: the delivery is {state.label}")


JOB = JobKind("prepare", prepare)


def _check_and_target(context: Context, delivery: Delivery) -> None:
    began, boot = context.clock.now(), context.clock.boot_seconds()
    with context.database.transaction() as conn:
        found = findings.before_targeting(conn, delivery, began)
    _refuse_errors(context, delivery, found)
    checked = context.clock.boot_seconds()
    context.beat()
    context.progress({"done": 0, "of": 0, "unit": "people", "phase": "target"})
    try:
        sentence = _target(context, delivery, found, began, checked - boot)
    except findings.TARGET_GONE as exc:  # between the checks and the statement
        _refuse_errors(context, delivery, [*found, findings.of_target(exc)])
        raise
    _raise(context, sentence)


def _target(context: Context, delivery: Delivery, found: list[Finding], began: datetime, check_seconds: float) -> str:
    """Write the log rows, what was found and the new state in one transaction; return the errors as text, "" for none."""
    boot = context.clock.boot_seconds()
    times = StatementTimes(context.clock.boot_seconds)
    with context.database.transaction(statement_seconds=targeting.STATEMENT_SECONDS) as conn:
        _fence(conn, delivery)
        with times.of(slow_phases.WRITE_LOG):
            chosen = (targeting if delivery.proof_of is None else proofs).target(conn, delivery, began)
        found = [*found, *findings.about_volume(delivery, chosen)]
        phases = add_phase([], "checks", began, check_seconds, 0)
        phases = add_phase(phases, "target", began, context.clock.boot_seconds() - boot, chosen.targeted, times.take())
        conn.execute(
            "update delivery set targeted = %s, excluded = %s, to_deliver = %s, findings = %s, phases = %s where id = %s",
            (
                chosen.targeted, chosen.targeted - chosen.to_deliver, chosen.to_deliver, _stored(found), Jsonb(phases),
                delivery.id,
            ),
        )  # fmt: skip
        sentence = _fail(conn, delivery.id, found)
        if not sentence:
            deliveries.transition(conn, delivery.id, DeliveryEvent.TARGETED)
    context.say("info", f"{chosen.targeted} people targeted, {chosen.to_deliver} to deliver")
    return sentence


class _Personalisation:
    """One slice of step 3."""

    def __init__(self, context: Context, delivery: Delivery) -> None:
        self._context = context
        self._delivery = delivery
        self._began = context.clock.now()
        self._started = self._boot = context.clock.boot_seconds()
        self._times = StatementTimes(context.clock.boot_seconds)
        self._trial = Trial(delivery)
        with context.database.transaction() as conn:
            self._reader = parts.PeopleReader(conn, delivery.id, fields_used(delivery.content))
            self._cutter = parts.PartCutter(options.integer(conn, "NmsBroadcast_MidAnalyzeBatchSize"))
            self._after, self._position, self._stored = parts.stored_up_to(conn, delivery.id)
        self._waiting: list[parts.Part] = []
        self._read = 0

    def run(self) -> Report:
        """Build and store parts until none is left or the slice's time is over."""
        while not self._is_over_time():
            self._context.beat()
            with self._context.database.transaction() as conn, self._times.of(slow_phases.READ_PEOPLE):
                page = self._reader.page(conn, self._after)
            for person in page.people:
                self._trial.take(person)
                self._wait_for(self._cutter.add(person))
            self._refuse_unrenderable()
            self._after = page.reached
            self._read += len(page.people)
            if page.is_last:
                self._wait_for(self._cutter.finish())
                return self._finish()
            if len(self._waiting) >= PARTS_AT_ONCE:
                self._store()
        if self._waiting or self._trial.problems:
            self._store()
        return Report(rows_read=self._read, rows_written=self._stored, more_after_seconds=0)

    def _wait_for(self, part: parts.Part | None) -> None:
        if part is not None:
            self._waiting.append(part)

    def _store(self) -> None:
        with self._context.database.transaction() as conn:
            self._delivery = _fence(conn, self._delivery)
            self._store_waiting(conn)
            _add_findings(conn, self._delivery, self._trial.problems)
        self._context.progress(
            {"done": self._stored, "of": self._delivery.to_deliver, "unit": "people", "phase": "personalisation"}
        )

    def _store_waiting(self, conn: Connection) -> None:
        for part in self._waiting:
            self._position += 1
            with self._times.of(slow_phases.STORE_PARTS):
                parts.store(conn, self._delivery.id, self._position, part)
            self._stored += part.rows
        rows = sum(part.rows for part in self._waiting)
        self._waiting = []
        now = self._context.clock.boot_seconds()
        phases = add_phase(
            self._delivery.phases, "personalisation", self._began, now - self._boot, rows, self._times.take()
        )
        self._boot = now
        conn.execute("update delivery set phases = %s where id = %s", (Jsonb(phases), self._delivery.id))

    def _finish(self) -> Report:
        differs = checks.prepared_differs(
            self._stored + sum(part.rows for part in self._waiting), self._delivery.to_deliver or 0
        )
        found = [*self._trial.problems, *self._trial.size_findings()]
        if differs:
            found.append(Finding(Severity.ERROR, "count", differs))
        _refuse_errors(self._context, self._delivery, found)
        with self._context.database.transaction() as conn:
            self._delivery = _fence(conn, self._delivery)
            self._store_waiting(conn)
            _add_findings(conn, self._delivery, found)
            deliveries.transition(conn, self._delivery.id, DeliveryEvent.FINALISED)
        self._context.say(
            "info", f"{self._stored} messages in {self._position} parts, {self._trial.shapes} shapes tried"
        )
        _say_slow(self._context, self._delivery.id)
        return Report(rows_read=self._read, rows_written=self._stored, then=ASKED_NEXT)

    def _refuse_unrenderable(self) -> None:
        _refuse_errors(self._context, self._delivery, self._trial.problems)

    def _is_over_time(self) -> bool:
        return self._context.clock.boot_seconds() - self._started > SLICE_SECONDS * SLICE_SHARE


def _say_slow(context: Context, delivery_id: int) -> None:
    """Say in the journal which phases were slow, and what is to blame (F01)."""
    with context.database.connection() as conn:
        for found in slow_phases.of_delivery(conn, deliveries.get(conn, delivery_id), context.clock.now()):
            context.say("warning", found.sentence)


def _fence(conn: Connection, delivery: Delivery) -> Delivery:
    """Lock the delivery and return it as it is now; raises Conflict when somebody changed it since it was read."""
    now = deliveries.get(conn, delivery.id, lock=True)
    if now.version != delivery.version:
        raise Conflict(
            f"delivery {delivery.id} was changed while it was prepared", "the preparation goes on from its tables"
        )
    return now


def _refuse_errors(context: Context, delivery: Delivery, found: list[Finding]) -> None:
    """Where there is an error: store all findings, move to *preparation failed*, raise PreparationFailed."""
    if not any(finding.severity is Severity.ERROR for finding in found):
        return
    with context.database.transaction() as conn:
        _fence(conn, delivery)
        sentence = _fail(conn, delivery.id, found)
    _raise(context, sentence)


def _fail(conn: Connection, delivery_id: int, found: list[Finding]) -> str:
    """Where there is an error: store all findings, move to *preparation failed*, return the errors as text; else ""."""
    errors = [finding.sentence for finding in found if finding.severity is Severity.ERROR]
    if not errors:
        return ""
    sentence = " ".join(errors[:SPOKEN_ERRORS])[:MAX_ERROR_CHARS]
    _add_findings(conn, deliveries.get(conn, delivery_id), found)
    conn.execute("update delivery set error = %s where id = %s", (sentence, delivery_id))
    deliveries.transition(conn, delivery_id, DeliveryEvent.PREPARATION_ERROR)
    return sentence


def _add_findings(conn: Connection, delivery: Delivery, found: list[Finding]) -> None:
    """Store ``found`` beside what ``delivery`` has, each sentence once: a slice after another tries its examples again."""
    new = {finding.sentence for finding in found}
    before = [finding for finding in delivery.findings if finding["sentence"] not in new]
    conn.execute(
        "update delivery set findings = %s where id = %s",
        (Jsonb([*before, *_plain(found)][:MAX_FINDINGS]), delivery.id),
    )


def _raise(context: Context, sentence: str) -> None:
    if sentence:
        context.say("error", sentence)
        raise PreparationFailed(sentence.removesuffix("."), REMEDY)


def _plain(found: list[Finding]) -> list[dict[str, Any]]:
    return [asdict(finding) for finding in found]


def _stored(found: list[Finding]) -> Jsonb:
    return Jsonb(_plain(found[:MAX_FINDINGS]))

"""Jobs on deliveries: what is due about them without anybody asking, every minute.

*Reads* `delivery`, `job`. *Writes* a new `delivery` for each tick of a recurring one, with its order; `job` rows that are needed
and that nobody has. *Pointer*: none; `delivery.recurrence_next_at` moves in the transaction that makes the delivery.

What it leaves to others: a start that waits for its contact date is the job ``order``'s, which alone gives it to the mid; waves
are batches of the mid that become ready later; messages whose validity is over are ended by the mid; what stands still in
spite of all is said by the doctor.

*Bounds*: 50 ticks and 500 standing deliveries a run, each a transaction of its own.

*When it fails*: a tick that cannot be made is said, stays due and is tried at the next run; the others go on. A run cut by a crash
is repeated: a tick is made once, because its delivery and the next tick are one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass

from midsource.engine.work import Context, Report
from midsource.marketing import lost_jobs, recurring
from midsource.model.errors import Failed, MidsourceError

NAME = "deliveryMgt"
LABEL = "Jobs on deliveries"
SCHEDULE = "every minute"
ROLES = ("marketing",)


@dataclass(frozen=True, slots=True)
class Settings:
    """Nothing can be set for it."""


def run_once(context: Context, settings: Settings | None = None) -> Report:  # noqa: ARG001 - the one shape
    """Make what is due, and ask again for what was lost."""
    with context.database.connection() as conn:
        due = recurring.due(conn, context.clock.now())
    made, failures = 0, []
    for delivery_id in due:
        context.beat()
        try:
            with context.database.transaction() as conn:
                ticked = recurring.tick(conn, delivery_id, context.clock)
        except MidsourceError as exc:
            failures.append(f"delivery {delivery_id}: {exc.cause}")
            context.say("error", f"delivery {delivery_id} could not make its next: {exc}")
            continue
        if ticked is not None:
            made += ticked.made is not None
            context.say("info" if ticked.made else "warning", ticked.line)
    asked = lost_jobs.ask_again(context.database, context.clock.now())
    for line in asked:
        context.say("warning", line)
    if failures:
        raise Failed(f"{len(failures)} recurring deliveries could not make their next: {'; '.join(failures)[:500]}",
                     "mend what each sentence names; the tick stays due")  # fmt: skip
    return Report(rows_read=len(due), rows_written=made + len(asked))

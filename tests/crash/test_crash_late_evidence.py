"""A process stops, its lease is taken over, it wakes up: the 250 it hears then is evidence, never a reason to send."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from tests.crash.keeper import Keeper

from midsource.net.resolver import StaticRoute
from midsource.testing.field import Field

PENDING, SENT, DEFERRED, UNCERTAIN = 6, 1, 61, 62
HELD, TWICE, PUT_OFF = "held@keeper.example", "twice@keeper.example", "put-off@keeper.example"
AGAIN_SECONDS = 7
"""Longer than the retry period of the story."""


@pytest.mark.slow
def test_a_late_250_is_evidence_beats_pending_and_names_a_second_copy(field: Field) -> None:
    """Three messages whose first 250 comes after their lease was taken over.

    One is on hold; of two that are sent again, one was taken a second time, the other put off until much later.
    """
    late = threading.Event()

    def answer(recipient: str, copy: int) -> str:
        if copy == 1 and recipient in (HELD, TWICE, PUT_OFF):
            late.wait(120)
            return "250 2.0.0 the first copy"
        return "451 4.3.0 come back later" if recipient == PUT_OFF else "250 2.0.0 the second copy"

    with Keeper(answer) as keeper:
        field.routes = [StaticRoute("keeper.example", "127.0.0.1", keeper.port)]
        field.sandbox()
        held = field.deliver([HELD])
        others = [f"p{n}@keeper.example" for n in range(20)]
        again = field.deliver(
            [TWICE, PUT_OFF, *others], uncertain_policy="resend", retry_period_seconds=5, retry_count=50
        )
        stalled = field.mta("mta@mid1")
        field.wait_until(lambda: {HELD, TWICE, PUT_OFF} <= set(keeper.kept))
        stalled.send_signal(signal.SIGSTOP)
        field.mta("mta@mid1.2")
        field.wait_until(lambda: field.ledger(held) == {UNCERTAIN: 1})
        field.wait_until(lambda: field.ids(again, SENT) >= {1} and field.ids(again, DEFERRED) >= {2}, 90)
        assert (keeper.kept[HELD], keeper.kept[TWICE]) == (1, 2)
        late.set()
        stalled.send_signal(signal.SIGCONT)
        field.wait_until(lambda: field.ledger(held) == {SENT: 1})
        field.wait_until(lambda: 2 in field.ids(again, SENT))
        field.wait_until(lambda: _tries(field, again, 1)[-1] == (SENT, True))

        assert _tries(field, held, 1) == [(UNCERTAIN, False), (SENT, False)]
        assert _tries(field, again, 1) == [(UNCERTAIN, False), (PENDING, False), (SENT, False), (SENT, True)], (
            "the other copy's 250 is recorded, and changes nothing"
        )
        assert _tries(field, again, 2)[-1] == (SENT, False), "a 250 beats what is planned"
        field.wait_finished(again)
        copies = keeper.kept[PUT_OFF]
        time.sleep(AGAIN_SECONDS)
        assert keeper.kept[PUT_OFF] == copies, "what has arrived is not tried again"
        assert stalled.poll() is None


def _tries(field: Field, delivery: int, message: int) -> list[tuple[int, bool]]:
    """Return the state after each recorded event of a message, in order, and whether it was evidence alone."""
    with field.database.connection() as conn:
        return conn.execute(
            "select new_state, evidence from outcome where delivery_id = %s and id = %s order by batch_id, row",
            (delivery, message),
        ).fetchall()

"""A machine is lost, with its journal or with its last writes: whoever may have got a message is named, nobody gets two."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest

from midsource.mid import replay
from midsource.testing.field import Field

SENT, UNCERTAIN = 1, 62
PEOPLE = 6_000


@pytest.mark.slow
def test_what_was_leased_and_has_no_outcome_is_uncertain_when_the_journal_is_gone(field: Field) -> None:
    field.sandbox()
    addresses = [f"p{n}@{'slow' if n % 20 == 0 else f'd{n % 3}'}.example" for n in range(PEOPLE)]
    delivery = field.deliver(addresses)
    lost = field.mta("mta@mid1")
    field.wait_until(lambda: field.ledger(delivery).get(SENT, 0) > 500)
    field.end(lost, signal.SIGKILL)
    shutil.rmtree(field.home / "journal" / "mid1")
    leased = waiting_in_leases(field, delivery)
    assert len(leased) > 100, "it had work in hand"
    assert not field.ids(delivery, UNCERTAIN)

    other = field.mta("mta@mid1.2")
    field.wait_finished(delivery, 90)
    assert field.ids(delivery, UNCERTAIN) == leased
    assert field.ids(delivery, SENT) == set(range(1, PEOPLE + 1)) - leased
    truth = field.truth(delivery)
    assert set(truth.values()) == {1}, "on hold, nobody gets a second copy"
    assert field.ids(delivery, SENT) <= set(truth)
    told = [json.loads(line) for line in field.log("mta@mid1.2").splitlines() if '"event": "recovered"' in line]
    assert sum(line["uncertain"] for line in told) == len(leased)
    assert field.end(other) == 0


@pytest.mark.slow
def test_what_the_journal_forgot_when_the_power_went_is_uncertain(field: Field) -> None:
    """The end of it never reached the disk, with starts of bodies that did leave; the machine is up again at once."""
    field.sandbox()
    addresses = [f"p{n}@d{n % 3}.example" for n in range(PEOPLE)]
    delivery = field.deliver(addresses)
    lost = field.mta("mta@mid1")
    field.wait_until(lambda: field.ledger(delivery).get(SENT, 0) > 500)
    field.end(lost, signal.SIGKILL)
    (folder,) = replay.folders(field.home / "journal" / "mid1")
    last = max(folder.glob("*.log"))
    os.truncate(last, last.stat().st_size * 9 // 10)
    (folder / replay.BOOT).unlink()
    (folder / replay.BOOT).symlink_to("the boot before")
    got = {outcome.id for sealed in replay.read(folder).unapplied for outcome in sealed.outcomes}
    in_doubt = waiting_in_leases(field, delivery) - got
    assert len(in_doubt) > 100, "it had work in hand"

    other = field.mta("mta@mid1.2")
    field.wait_finished(delivery, 90)
    truth = field.truth(delivery)
    assert field.ids(delivery, UNCERTAIN) == in_doubt
    assert field.ids(delivery, SENT) == set(range(1, PEOPLE + 1)) - in_doubt
    assert set(truth.values()) == {1}, "on hold, nobody gets a second copy"
    assert in_doubt & set(truth), "what was forgotten had left"
    assert field.end(other) == 0


def waiting_in_leases(field: Field, delivery: int) -> set[int]:
    """Return the messages without an outcome in the batches that somebody has."""
    with field.database.connection() as conn:
        return {
            id_
            for (id_,) in conn.execute(
                "select m.id from dispatch_batch b cross join unnest(b.ids) as i (id) join message m "
                "on m.account_id = b.account_id and m.delivery_id = b.delivery_id and m.id = i.id "
                "where b.delivery_id = %s and b.owner is not null and m.state in (6, 61)",
                (delivery,),
            )
        }

"""Two of each process on two machines over one PostgreSQL: either is stopped, either loses its power, and nothing stops.

What may be uncertain is what the dark machine had in flight: its journal is on its disk and is replayed when it is
started again. Machines that never come back are the crash tests' (`test_crash_lost_machine`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.story.machines import KINDS, Machine, TwoMachines, two_machines

from midsource.bench.lab.accounting import account_everybody
from midsource.model.message import MessageState

pytestmark = pytest.mark.slow
PEOPLE = 4_000
DOMAINS = ("gmail", "orange", "outlook", "sapo", "laposte")
CONNECTIONS = 4
"""To one destination, of one mta (instances.mid1.connections_per_destination)."""


@pytest.fixture(scope="module")
def pair() -> Iterator[TwoMachines]:
    """Both machines run; people are on a list."""
    with tempfile.TemporaryDirectory(prefix="midsource-machines-", dir="/tmp") as folder:
        place = Path(folder)
        place.chmod(0o711)
        with two_machines(place) as both:
            both.machines[0].people("all", [f"p{n}@{DOMAINS[n % len(DOMAINS)]}.example" for n in range(PEOPLE)])
            yield both


def tried(machine: Machine, delivery: int) -> int:
    """Return how many messages of the delivery have an outcome."""
    return machine.number("mid1", "select count(*) from message where delivery_id = %s and state <> 6", (delivery,))


def sent_until(both: TwoMachines, machine: Machine, share: float) -> int:
    """Order a delivery on the machine that will be left, and return it when so much of it is tried."""
    left = both.other(machine)
    delivery = left.delivery("all")
    left.run("delivery", "send", str(delivery))
    left.wait_until(lambda: tried(left, delivery) >= share * PEOPLE, f"{share:.0%} are tried", 90)
    return delivery


def goes_on(both: TwoMachines, machine: Machine) -> None:
    """Without ``machine``: a new delivery goes out and its results come back, all on the other one."""
    left = both.other(machine)
    delivery = left.delivery("all")
    left.run("delivery", "send", str(delivery))
    left.wait_over(delivery, 120)
    found = account_everybody(left, delivery)
    assert not found.ever_uncertain
    assert left.run("status").code == 0


def test_each_kind_of_process_lives_twice(pair: TwoMachines) -> None:
    for machine in pair.machines:
        assert sorted(machine.running()) == sorted(KINDS)
    hosts = {row[0] for row in pair.machines[0].rows("mid1", "select distinct host from process")}
    assert len(hosts) in (1, 2)
    for instance, each in (("marketing", 4), ("mid1", 6)):
        living = "select count(*) from process where beat_at > now() - interval '30 seconds'"
        assert pair.machines[0].number(instance, living) == each


def test_both_machines_take_part(pair: TwoMachines) -> None:
    first, second = pair.machines
    delivery = sent_until(pair, second, 1.0)
    first.wait_over(delivery)
    account_everybody(first, delivery)
    senders = first.rows("mid1", "select distinct process from outcome where delivery_id = %s", (delivery,))
    assert len(senders) == 2, f"both mta processes sent: {senders}"
    assert all(pair.before_mid.taken.values()), (
        f"both web processes of the mid served the link: {pair.before_mid.taken}"
    )


@pytest.mark.parametrize("number", [0, 1], ids=["a", "b"])
def test_a_machine_that_is_stopped_costs_nobody(pair: TwoMachines, number: int) -> None:
    machine = pair.machines[number]
    delivery = sent_until(pair, machine, 0.2)
    machine.run("down")
    goes_on(pair, machine)
    left = pair.other(machine)
    left.wait_over(delivery)
    found = account_everybody(left, delivery)
    assert not found.ever_uncertain, "who is stopped finishes what it began"
    assert max(found.copies.values()) == 1
    machine.run("up", "--detach")


@pytest.mark.parametrize("number", [0, 1], ids=["a", "b"])
def test_a_machine_that_loses_its_power_stops_nothing(pair: TwoMachines, number: int) -> None:
    machine = pair.machines[number]
    delivery = sent_until(pair, machine, 0.2)
    machine.lose_power()
    goes_on(pair, machine)
    machine.run("up", "--detach")
    left = pair.other(machine)
    left.wait_over(delivery)
    found = account_everybody(left, delivery)
    assert len(found.ids(MessageState.UNCERTAIN)) <= CONNECTIONS * len(DOMAINS)
    assert max(found.copies.values()) == 1, "hold: who is uncertain gets no second copy"

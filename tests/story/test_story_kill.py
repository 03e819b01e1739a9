"""Kill -9 of each kind of process in the middle of a delivery: it finishes by itself, and everybody is accounted for.

The moment is drawn by chance among all steps of the delivery (a row handed over is one, an outcome another) and printed.
"""

from __future__ import annotations

import random
import sys

import pytest

from midsource.bench.lab.accounting import Accounted, account_everybody
from midsource.cli.ground import Home
from midsource.marketing import sample
from midsource.model.message import MessageState

pytestmark = pytest.mark.slow
PEOPLE = 4_000
CONNECTIONS = 4
"""To one destination (instances.mid1.connections_per_destination), with one body under way on each."""
HANGS_UP = "drop.example"
"""The sandbox's provider that keeps some messages and hangs up: those are uncertain without any kill."""
ANY_MOMENT, SENDING = (0.01, 0.95), (0.52, 0.95)
"""Shares of all steps: the first half is the hand-over, the second the sending."""


@pytest.fixture(scope="module")
def people(home: Home) -> Home:
    """The home with 4 000 sample people on a list."""
    file = home.path / "people.csv"
    sample.write_sample(file, PEOPLE)
    home.run("recipients", "import", str(file), "--list", "all", "--create-fields")
    return home


def kill_during(home: Home, name: str, share: float) -> int:
    """Send a delivery to everybody, kill the process when that share of all steps is done; return the delivery."""
    delivery = home.delivery("all")
    home.run("delivery", "send", str(delivery))
    at = share * 2 * PEOPLE * 0.96  # about 4 % are excluded

    def steps() -> int:
        """Rows on the mid, and once more for each that has an outcome."""
        return home.number(
            "mid1",
            "select count(*) + count(*) filter (where state <> 6) from message where delivery_id = %s",
            (delivery,),
        )

    home.wait_until(lambda: steps() >= at, f"{at:.0f} steps are done")
    sys.stdout.write(f"{name} is killed after {steps()} of about {2 * PEOPLE * 0.96:.0f} steps\n")
    home.kill(name)
    return delivery


def lost_by_kill(found: Accounted) -> frozenset[int]:
    """Return the uncertain ones that no provider of the sandbox made."""
    return frozenset(i for i in found.ids(MessageState.UNCERTAIN) if found.domains[i] != HANGS_UP)


@pytest.mark.parametrize("name", ["web@marketing", "worker@marketing", "web@mid1", "worker@mid1", "postgres"])
def test_a_killed_process_costs_nobody(people: Home, chance: random.Random, name: str) -> None:
    delivery = kill_during(people, name, chance.uniform(*ANY_MOMENT))
    people.wait_over(delivery)
    found = account_everybody(people, delivery)
    assert not lost_by_kill(found), "none of them has a body under way"
    assert max(found.copies.values()) == 1
    people.wait_until(lambda: people.run("status", code=None).code == 0, "everything runs again", 60)


def test_a_killed_mta_leaves_no_more_uncertain_than_its_connections(people: Home, chance: random.Random) -> None:
    delivery = kill_during(people, "mta@mid1", chance.uniform(*SENDING))
    people.wait_over(delivery)
    found = account_everybody(people, delivery)
    assert len(lost_by_kill(found)) <= CONNECTIONS * len(set(found.domains.values()))
    assert max(found.copies.values()) == 1, "hold: who is uncertain gets no second copy"


def test_a_killed_supervisor_is_followed_by_up(people: Home, chance: random.Random) -> None:
    """Its processes end with it, the sandbox too, which may hold copies it had no time to confirm."""
    delivery = kill_during(people, "supervisor", chance.uniform(*SENDING))
    assert people.run("status", code=3).err.count("does not run") == 1
    people.up()
    people.wait_over(delivery)
    found = account_everybody(people, delivery)
    assert len(lost_by_kill(found)) <= CONNECTIONS * len(set(found.domains.values()))
    assert max(found.copies.values()) == 1

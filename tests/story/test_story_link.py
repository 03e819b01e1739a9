"""The link between the halves is cut: the mid sends on alone, orders wait and say so, and the hand-over goes on where it was."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator

import pytest

from midsource.bench.lab.accounting import account_everybody
from midsource.cli.ground import Home
from midsource.config import load
from midsource.model.message import MessageState
from midsource.testing.proxy import CutRequest, Fault, FaultProxy, Pass, Seen

pytestmark = pytest.mark.slow
ACCOUNT = "far"
CUT_SECONDS = 20
PARTS = 8


@pytest.fixture(scope="module")
def link(home: Home) -> Iterator[FaultProxy]:
    """A TCP proxy before the mid, and an external account that leads through it, made as an operator makes one."""
    key = home.run("account", "add", ACCOUNT, "--role", "mid").out.splitlines()[-1]
    with FaultProxy(load(home.path).instance("mid1").port) as proxy:
        home.run("account", "add", ACCOUNT, "--url", proxy.url, "--key", key)
        home.run("account", "test", ACCOUNT)
        yield proxy
        proxy.fault = lambda _: Pass()


@pytest.mark.timeout(200)
def test_a_pause_ordered_while_the_link_is_cut_takes_effect_when_it_returns(home: Home, link: FaultProxy) -> None:
    """Of 1 500 people 150 are at a slow provider, which takes some seven a second: twenty seconds' work for the mid."""
    home.people("slowly", [f"p{n}@{'slow' if n % 10 == 0 else 'gmail'}.example" for n in range(1_500)])
    delivery = home.delivery("slowly", account=ACCOUNT)
    home.run("delivery", "prepare", str(delivery), "--wait")
    home.run("delivery", "send", str(delivery))
    home.wait_until(lambda: sent(home, delivery) >= 100, "the mid sends")
    link.down()
    home.run("delivery", "pause", str(delivery))
    at_cut = sent(home, delivery)
    shown = home.json("delivery", "show", str(delivery))
    assert (shown["ordered"], shown["order_confirmed"]) == ("pause", False)
    assert "(pause ordered, not confirmed)" in home.run("delivery", "show", str(delivery)).out
    home.wait_until(lambda: sent(home, delivery) > at_cut + 20, "the mid sends on alone")
    home.wait_until(lambda: bool(orders_failed(home, delivery)), "the failed order is told")
    assert re.search(
        r"ExecCommand pause: no answer \(connection refused\), attempt \d+, next in ", orders_failed(home, delivery)[0]
    )
    link.up()
    home.wait_until(
        lambda: bool(home.json("delivery", "show", str(delivery))["order_confirmed"]), "the pause is confirmed", 40
    )
    home.wait_until(lambda: home.json("delivery", "show", str(delivery))["state"] == "paused", "it is paused", 40)
    at_pause = sent(home, delivery)
    assert at_pause < 1_500
    time.sleep(3)
    assert sent(home, delivery) == at_pause, "what is paused sends nothing"
    home.run("delivery", "resume", str(delivery), "--wait")
    home.wait_over(delivery)
    found = account_everybody(home, delivery)
    assert len(found.ids(MessageState.SENT)) == 1_500
    assert max(found.copies.values()) == 1


def test_a_cut_in_the_middle_of_the_hand_over_loses_and_doubles_nothing(home: Home, link: FaultProxy) -> None:
    """The third part is cut in mid-body, then nobody answers for 20 s."""
    home.run("option", "set", "NmsBroadcast_MidAnalyzeBatchSize", "500")
    home.people("many", [f"m{n}@{'sapo' if n % 2 else 'free'}.example" for n in range(500 * PARTS)])
    delivery = home.delivery("many", account=ACCOUNT)
    parts: list[Seen] = []
    cut = threading.Event()

    def cut_the_third(seen: Seen) -> Fault:
        if seen.method == "PUT" and "/parts/" in seen.path:
            parts.append(seen)
            if len(parts) == 3:
                link.down()
                cut.set()
                return CutRequest(seen.body_bytes // 2)
        return Pass()

    link.fault = cut_the_third
    home.run("delivery", "send", str(delivery))
    assert cut.wait(30), "the third part was on its way"
    time.sleep(CUT_SECONDS)
    taken = home.number("mid1", "select count(*) from message where delivery_id = %s", (delivery,))
    assert taken < 500 * PARTS, "the hand-over waits"
    lines = home.json("delivery", "show", str(delivery))["link"]
    told = rf"AppendDeliveryPart part \d of {PARTS}: no answer \(.+\), attempt \d+, next (with \d+ rows )?in \d+"
    assert any(re.search(told, line) for line in lines), lines
    assert re.search(told, home.run("logs", "worker@marketing", "--grep", "AppendDeliveryPart").out)
    link.up()
    home.wait_over(delivery)
    found = account_everybody(home, delivery)
    assert len(found.ids(MessageState.SENT)) == 500 * PARTS
    assert max(found.copies.values()) == 1


def sent(home: Home, delivery: int) -> int:
    """Return how many messages the mid's ledger calls sent."""
    return home.number("mid1", "select count(*) from message where delivery_id = %s and state = 1", (delivery,))


def orders_failed(home: Home, delivery: int) -> list[str]:
    """Return the failed orders that `delivery show` tells, newest first."""
    return [line for line in home.json("delivery", "show", str(delivery))["link"] if "ExecCommand" in line]

"""The comparison that all stories end with finds what is wrong: else it would prove nothing."""

from __future__ import annotations

import smtplib

import httpx2
import pytest

from midsource.bench.lab.accounting import Difference, account_everybody
from midsource.cli.ground import Home
from midsource.config import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def delivery(home: Home) -> int:
    """A healthy delivery: most are sent, some refused, one excluded because another has its address."""
    addresses = [f"p{n}@{'nobody' if n % 10 == 0 else 'gmail'}.example" for n in range(60)]
    home.people("few", [*addresses, addresses[1]])
    made = home.delivery("few")
    home.run("delivery", "send", str(made))
    home.wait_over(made)
    account_everybody(home, made)
    return made


def test_a_fault_in_a_row_or_a_counter_is_told_by_its_name(home: Home, delivery: int) -> None:
    """Each fault is put into a healthy delivery, noticed by its name, and taken out again."""
    failed = home.number("mid1", "select min(id) from message where delivery_id = %s and state = 2", (delivery,))
    [(excluded, reason)] = home.rows(
        "marketing", "select id, reason from broad_log where delivery_id = %s and state = 0 limit 1", (delivery,)
    )
    one = f"delivery_id = {delivery} and id = {failed}"
    faults = {
        "rows differ between log and ledger": [("mid1", f"update message set state = %s where {one}", 1, 2)],
        "called sent, and not in the sink": [
            (side, f"update {table} set state = %s where {one}", 1, 2)
            for side, table in (("mid1", "message"), ("marketing", "broad_log"))
        ],
        "each exclusion has its reason": [
            (
                "marketing",
                f"update broad_log set reason = %s where delivery_id = {delivery} and id = {excluded}",
                0,
                reason,
            )
        ],
        "the mid's counters": [
            ("mid1", f"update message_total set n = n + %s where delivery_id = {delivery} and state = 1", 1, -1)
        ],
        "marketing's counters": [
            ("marketing", f"update broad_log_total set n = n + %s where delivery_id = {delivery} and state = 1", 1, -1)
        ],
    }
    for told, changes in faults.items():
        for side, statement, fault, _ in changes:
            home.rows(side, statement, (fault,))
        with pytest.raises(Difference, match=told):
            account_everybody(home, delivery)
        for side, statement, _, undo in changes:
            home.rows(side, statement, (undo,))
    account_everybody(home, delivery)


def test_a_second_copy_is_told_by_its_name(home: Home, delivery: int) -> None:
    sandbox = load(home.path).sandbox
    fact = home.truth(delivery)[-1]
    raw = httpx2.get(f"http://127.0.0.1:{sandbox.http_port}/inbox/{fact['n']}/raw", timeout=30)
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=30) as again:
        again.sendmail("copy@shop.test", [fact["rcpt"]], raw.content)
    with pytest.raises(Difference, match="got two copies and were never uncertain"):
        account_everybody(home, delivery)

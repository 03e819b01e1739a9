"""Stories of sending: real mta processes, the real sandbox, a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midsource.testing.field import Field

SENT, FAILED, PENDING, CANCELLED, DEFERRED, UNCERTAIN = 1, 2, 6, 7, 61, 62


@pytest.fixture
def a_field(tmp_path: Path, mid_template: str, make_database: Callable[..., str]) -> Iterator[Field]:
    with Field(tmp_path, make_database(mid_template)) as made:
        yield made


def people(count: int, *domains: str) -> list[str]:
    return [f"person{n}@{domains[n % len(domains)]}" for n in range(1, count + 1)]


def test_everything_is_sent_once_and_the_delivery_finishes(a_field: Field) -> None:
    a_field.sandbox()
    process = a_field.mta()
    delivery = a_field.deliver(people(1_000, "gmail.example", "orange.example", "sapo.example"))
    a_field.wait_finished(delivery)
    assert a_field.ledger(delivery) == {SENT: 1_000}
    truth = a_field.truth(delivery)
    assert set(truth) == set(range(1, 1_001))
    assert set(truth.values()) == {1}
    assert a_field.end(process) == 0
    assert list((a_field.home / "journal" / "mid1").iterdir()) == [], "a settled journal leaves nothing behind"

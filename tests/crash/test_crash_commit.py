"""Nobody heard whether a COMMIT was done: what it held is told again, and recorded once."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from midsource.mid import replay
from midsource.model.errors import MidsourceError
from midsource.supervise.places import settle
from midsource.supervise.postgres import EmbeddedPostgres
from midsource.testing.field import Field
from midsource.testing.postgres_proxy import CommitFate, PostgresProxy

SENT = 1
PEOPLE = 4_000
ADDRESSES = [f"p{n}@d{n % 4}.example" for n in range(PEOPLE)]

SLOW = 120
LASTING = ADDRESSES[:-SLOW] + [f"p{n}@slow.example" for n in range(SLOW)]
"""With some that take a dozen seconds: what is sent while PostgreSQL is away leaves few commits for the next kill."""


def everybody_once(field: Field, delivery: int) -> None:
    """Everybody got one copy, is sent, and has one outcome."""
    field.wait_until(lambda: _is_finished(field, delivery), 90)
    truth = field.truth(delivery)
    assert set(truth) == set(range(1, PEOPLE + 1))
    assert set(truth.values()) == {1}
    assert field.ledger(delivery) == {SENT: PEOPLE}
    with field.database.connection() as conn:
        assert conn.execute("select count(*), count(distinct id) from outcome").fetchone() == (PEOPLE, PEOPLE)
        told = "select sum((t ->> 4)::int) from feed_batch, jsonb_array_elements(tally) t where (t ->> 3)::int = 1"
        assert conn.execute(told.encode()).fetchone() == (PEOPLE,), "counted once"


def test_a_commit_whose_answer_is_lost_is_told_again_and_done_once(field: Field, chance: random.Random) -> None:
    """Of every eight COMMITs two are cut off, one of them after it was done; chance orders each eight."""
    fates = {CommitFate.LOST: 0, CommitFate.DONE: 0, CommitFate.PASS: 0}
    bag: list[CommitFate] = []

    def fate(_number: int) -> CommitFate:
        if not bag:
            bag.extend([CommitFate.LOST, CommitFate.DONE, *[CommitFate.PASS] * 6])
            chance.shuffle(bag)
        drawn = bag.pop()
        fates[drawn] += 1
        return drawn

    field.sandbox()
    with PostgresProxy(field.dsn, fate) as proxy:
        field.dsn = proxy.dsn
        process = field.mta()
        everybody_once(field, field.deliver(ADDRESSES))
        assert process.poll() is None
    assert min(fates.values()) > 0, fates


def test_a_process_killed_after_a_commit_it_never_heard_of_leaves_it_done_once(field: Field) -> None:
    """Its journal does not know that the batch was settled; PostgreSQL does."""
    field.sandbox()
    delivery = field.deliver(ADDRESSES)
    with PostgresProxy(field.dsn, lambda number: CommitFate.DONE if number >= 8 else CommitFate.PASS) as proxy:
        true_dsn, field.dsn = field.dsn, proxy.dsn
        process = field.mta()
        field.wait_until(lambda: proxy.commits >= 8 and _done_unheard(field))
        field.end(process, signal.SIGKILL)
    field.dsn = true_dsn
    assert _done_unheard(field)
    field.mta("mta@mid1.2")
    field.wait_until(lambda: _is_finished(field, delivery), 90)
    with field.database.connection() as conn:
        [(rows, tries)] = conn.execute("select count(*), count(distinct (id, event_at)) from outcome").fetchall()
    assert rows == tries == PEOPLE
    assert set(field.truth(delivery).values()) == {1}


@pytest.mark.slow
def test_postgresql_killed_at_the_moment_of_a_commit_loses_and_doubles_nothing(
    tmp_path: Path, open_folder: Path
) -> None:
    """A server of its own; its postmaster is killed with -9 just as a COMMIT was passed on, three times."""
    place = open_folder / "commits"
    place.mkdir(mode=0o711)
    (place / "home").mkdir(mode=0o711)
    server = EmbeddedPostgres(place / "home", system_folder=place / "system")
    killed: dict[int, int] = {}
    with server.use() as use:
        use.ensure_database("mid1")
        with Field(tmp_path, use.dsn("mid1")) as field:

            def fate(number: int) -> CommitFate:
                if len(killed) < 3 and number >= 8 + max(killed.values(), default=0):
                    pid = _postmaster(server, place / "system")
                    if pid not in killed:
                        killed[pid] = number
                        os.kill(pid, signal.SIGKILL)
                        return CommitFate.DONE  # passed on behind the kill: its backends live until they notice
                return CommitFate.PASS

            field.sandbox()
            delivery = field.deliver(LASTING)
            with PostgresProxy(field.dsn, fate) as proxy:
                field.dsn = proxy.dsn
                process = field.mta()
                field.wait_until(lambda: len(killed) == 3, 90)
                everybody_once(field, delivery)
                assert process.poll() is None, "the process itself went on"
    server.stop_now()


def _postmaster(server: EmbeddedPostgres, system_folder: Path) -> int:
    return int((settle(server.files, system_folder).data / "postmaster.pid").read_text().split()[0])


def _done_unheard(field: Field) -> bool:
    """Tell whether PostgreSQL has a batch that the journal calls open."""
    with field.database.connection() as conn:
        done = set(conn.execute("select process, segment, number from journal_applied").fetchall())
    return any(
        (folder.name, sealed.segment, sealed.number) in done
        for folder in replay.folders(field.home / "journal" / "mid1")
        for sealed in replay.read(folder).unapplied
    )


def _is_finished(field: Field, delivery: int) -> bool:
    try:
        return field.state(delivery) == 95
    except MidsourceError:
        return False

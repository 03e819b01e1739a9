"""Totals of the delivery log against its rows."""

from __future__ import annotations

import pytest

from midsource.marketing import totals
from midsource.store.database import Database, scalar

DELIVERY = (202603 << 32) + 1


def fill(db: Database, state: int) -> None:
    """A delivery of five people with right totals."""
    with db.transaction() as conn:
        conn.execute("insert into brand values ('b', '', 'a@b.example', null, '{b.example}', 'u', '', now())")
        conn.execute("insert into external_account (name, label, url, key_id, secret) values ('mid', '', '', '', '')")
    add(db, DELIVERY, state)


def add(db: Database, number: int, state: int) -> None:
    with db.transaction() as conn:
        conn.execute(
            "insert into delivery (id, label, state, brand, account, subject, html, text, from_name, from_address, "
            "validity_seconds, retry_count, retry_period_seconds, uncertain_policy) "
            "values (%s, 'l', %s, 'b', 'mid', '', '', '', '', '', 3600, 1, 60, 'hold')",
            (number, state),
        )
        conn.execute(
            "insert into broad_log (delivery_id, id, recipient_id, email, domain, state, event_at) "
            "select %s, n, n, n || '@a.example', 'a.example', 1, now() from generate_series(1, 5) n",
            (number,),
        )
        conn.execute("insert into broad_log_total values (%s, 'a.example', 1, 0, 5)", (number,))


def read(db: Database) -> dict[tuple[str, int], int]:
    with db.connection() as conn:
        rows = conn.execute(
            "select domain, state, n from broad_log_total where delivery_id = %s", (DELIVERY,)
        ).fetchall()
    return {(domain, state): n for domain, state, n in rows if n}


def test_right_totals_are_left_alone_and_looked_at_once(marketing_db: Database) -> None:
    fill(marketing_db, 95)
    said: list[str] = []
    assert totals.recount_ended(marketing_db, lambda _level, line: said.append(line)) == 0
    assert said == []
    with marketing_db.connection() as conn:
        assert scalar(conn, "select recounted_at is not null from delivery")


def test_wrong_totals_are_corrected_from_the_rows_and_told(marketing_db: Database) -> None:
    fill(marketing_db, 95)
    with marketing_db.connection() as conn:
        conn.execute("update broad_log_total set n = 4")
        conn.execute("insert into broad_log_total values (%s, 'ghost.example', 2, 20, 3)", (DELIVERY,))
    said: list[str] = []
    assert totals.recount_ended(marketing_db, lambda level, line: said.append(f"{level} {line}")) == 2
    assert read(marketing_db) == {("a.example", 1): 5}
    assert said == [f"warning totals of delivery {DELIVERY} differed from its log in 2 places and are corrected"]
    assert totals.recount_ended(marketing_db, lambda _level, _line: None) == 0


def test_a_delivery_under_way_or_with_pending_rows_waits(marketing_db: Database) -> None:
    fill(marketing_db, 55)
    with marketing_db.connection() as conn:
        conn.execute("update broad_log_total set n = 4")
    assert totals.recount_ended(marketing_db, lambda _level, _line: None) == 0
    with marketing_db.connection() as conn:
        conn.execute("update delivery set state = 95")
        conn.execute("insert into broad_log_total values (%s, 'a.example', 61, 0, 1)", (DELIVERY,))
    assert totals.recount_ended(marketing_db, lambda _level, _line: None) == 0


def recounted(db: Database) -> set[int]:
    with db.connection() as conn:
        return {row[0] for row in conn.execute("select id from delivery where recounted_at is not null")}


def test_a_delivery_that_another_holds_is_said_and_the_others_are_recounted(marketing_db: Database) -> None:
    """The first of them stopped the counters workflow, run after run, and everything behind it waited."""
    fill(marketing_db, 95)
    add(marketing_db, DELIVERY + 1, 95)
    said: list[str] = []
    with marketing_db.connection() as holder, holder.transaction():
        holder.execute("select pg_advisory_xact_lock(%s, hashint8(%s))", (totals._RECOUNT_LOCK, DELIVERY))
        totals.recount_ended(marketing_db, lambda level, line: said.append(f"{level} {line}"))
    assert recounted(marketing_db) == {DELIVERY + 1}
    assert len(said) == 1
    assert said[0].startswith(
        f"warning totals of delivery {DELIVERY} could not be compared with its log: another writer"
    )
    totals.recount_ended(marketing_db, lambda _level, _line: None)
    assert recounted(marketing_db) == {DELIVERY + 1}, "not tried again at once"
    with marketing_db.connection() as conn:
        conn.execute("update failed_try set failed_at = failed_at - %s::interval", (totals.RECOUNT_AGAIN,))
    totals.recount_ended(marketing_db, lambda _level, _line: None)
    assert recounted(marketing_db) == {DELIVERY, DELIVERY + 1}
    with marketing_db.connection() as conn:
        assert scalar(conn, "select count(*) from failed_try") == 0


def test_one_that_takes_too_long_goes_behind_the_others(
    marketing_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(marketing_db, 95)
    add(marketing_db, DELIVERY + 1, 95)
    monkeypatch.setattr(totals, "RECOUNT_SECONDS", 1)
    with marketing_db.connection() as conn:
        conn.execute(
            "create function slowly() returns trigger language plpgsql as $$ begin perform pg_sleep(3); return new; end $$"
        )
        conn.execute(
            f"create trigger slow before update of recounted_at on delivery for each row when (new.id = {DELIVERY}) "
            "execute function slowly()"
        )
    for _ in range(2):
        totals.recount_ended(marketing_db, lambda _level, _line: None)
    assert recounted(marketing_db) == {DELIVERY + 1}

"""Every treatment mends what its check saw, is written down, undone where it can be, and never done twice so soon."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import datetime, timedelta

import psycopg
import pytest

from midsource.doctor import heal
from midsource.doctor.checks import CHECKS, database
from midsource.doctor.heal import Healing, Plan, pause
from midsource.doctor.treatments import TREATMENTS, Surgery
from midsource.engine.work import Context
from midsource.mid.journal import Journal
from midsource.mid.records import Outcome, Start
from midsource.model.errors import Conflict, NotFound
from midsource.model.finding import Finding
from midsource.security.roles import SYSTEM, at_command_line
from midsource.testing.clock import ManualClock
from midsource.testing.mid import MidDatabase
from midsource.workflows import doctor

from .conftest import CLOCK, Patient, delivery

ME = at_command_line("me")
LOGS = "NmsMidSourcing_LastBroadLog_mid1"


def surgery(patient: Patient) -> Surgery:
    return Surgery(patient.database, patient.facts(), ME)


def planned(patient: Patient, only: str, *, alone: bool = False, looks: int = 1) -> list[Plan]:
    for _ in range(looks):
        patient.look(only)
    with patient.database.connection() as conn:
        return heal.plans(conn, patient.standing(), CLOCK.now(), alone=alone)


def treat(patient: Patient, only: str) -> Healing:
    (plan,) = planned(patient, only)
    return heal.treat(surgery(patient), plan)


def test_every_treatment_is_of_a_check_and_says_whether_it_can_be_undone() -> None:
    assert set(TREATMENTS) <= {check.name for check in CHECKS}
    for one in TREATMENTS.values():
        assert bool(one.final) is (one.undo is None), one.check
        assert one.undo is None or not one.is_safe, "what somebody may have meant is not changed without asking"


def test_a_workflow_is_restarted_and_that_is_not_undone(marketing: Patient) -> None:
    marketing.execute(
        "insert into workflow (name, schedule, failed, consecutive_failures, last_error, last_success_at) "
        "values ('defaultMidSourcingLog', 'every hour', true, 4, 'away', now() - interval '1 day')"
    )
    done = treat(marketing, "workflow.failed")
    assert (done.outcome, done.by, done.can_undo) == ("done", "cli:me", False)
    assert done.before == "started, failed, 4 failures in a row"
    assert marketing.execute("select failed, consecutive_failures from workflow") == [(False, 0)]
    assert marketing.execute("select count(*) from workflow_run where finished_at is null") == [(1,)]
    with pytest.raises(Conflict, match="cannot be undone: a run that was asked for"):
        heal.undo(surgery(marketing), done.finding_id)
    ((verb, who, detail),) = marketing.execute("select verb, who, detail from audit")
    assert (verb, who, detail["what"]) == ("doctor.heal", "cli:me", "restarted defaultMidSourcingLog")


def test_a_pointer_that_stands_still_has_its_workflow_restarted(marketing: Patient) -> None:
    marketing.execute("insert into workflow (name, schedule) values ('defaultMidSourcingLog', 'every hour')")
    marketing.execute("update pointer set moved_at = now() - interval '4 h' where stream = 'logs'")
    (found,) = marketing.see("pointer.stuck")
    marketing.mids["mid1"] = None
    with marketing.database.transaction() as conn:
        done = TREATMENTS["pointer.stuck"].act(conn, surgery(marketing), found)
    assert done.what == "restarted defaultMidSourcingLog"


def test_a_missing_pointer_is_made(marketing: Patient) -> None:
    marketing.execute("delete from pointer where stream = 'logs'")
    assert treat(marketing, "pointer.missing").outcome == "done"
    assert marketing.see("pointer.missing") == []


@pytest.mark.parametrize("written", ["yesterday", None])
def test_an_option_shows_its_pointer_again_and_the_text_comes_back_by_undoing(
    marketing: Patient, written: str | None
) -> None:
    if written is None:
        marketing.execute("delete from option where name = %s", LOGS)
    else:
        marketing.execute("update option set value = %s where name = %s", written, LOGS)
    done = treat(marketing, "pointer.option")
    assert (done.can_undo, done.before) == (True, str(written))
    assert marketing.see("pointer.option") == []
    assert LOGS in heal.undo(surgery(marketing), done.finding_id)
    assert marketing.execute("select value from option where name = %s", LOGS) == (
        [] if written is None else [(written,)]
    )
    with pytest.raises(Conflict, match="undone already"):
        heal.undo(surgery(marketing), done.finding_id)


def test_an_account_is_switched_on_and_off_again(marketing: Patient) -> None:
    delivery(marketing, state=25)
    marketing.execute("update external_account set active = false")
    done = treat(marketing, "account.off")
    assert marketing.execute("select active from external_account") == [(True,)]
    assert heal.undo(surgery(marketing), done.finding_id) == "the account mid1 is off again"
    assert marketing.execute("select active from external_account") == [(False,)]
    assert marketing.execute("select verb from audit order by id") == [("doctor.heal",), ("doctor.undo",)]


@pytest.mark.parametrize(("state", "kind"), [(15, "prepare"), (22, "prepare"), (25, "handover")])
def test_the_next_step_of_a_stuck_delivery_is_asked_for(marketing: Patient, state: int, kind: str) -> None:
    number = delivery(marketing, state=state, modified_at=CLOCK.now() - timedelta(hours=1))
    assert treat(marketing, "delivery.stuck").outcome == "done"
    assert marketing.execute("select kind, subject from job") == [(kind, number)]


def test_orders_and_parts_are_asked_for_again(marketing: Patient) -> None:
    order = delivery(marketing, state=45, ordered="start", ordered_at=CLOCK.now() - timedelta(hours=1))
    assert treat(marketing, "delivery.orders").after.startswith("job order-")
    number = delivery(marketing, 2, state=25)
    marketing.execute(
        "insert into upload_part (delivery_id, part, position, first_id, last_id, rows, bytes, content_hash, row_hash, stored_at) "
        "values (%s, '1', 1, 1, 9, 9, 9, 'x', 1, now() - interval '1 h')",
        number,
    )
    marketing.look("delivery.parts")
    plan = next(one for one in planned(marketing, "delivery.parts") if one.row.finding.check == "delivery.parts")
    heal.treat(surgery(marketing), plan)
    assert set(marketing.execute("select kind, subject from job")) == {("order", order), ("handover", number)}


def test_a_treatment_that_fails_is_written_down_and_tried_no_sooner(marketing: Patient) -> None:
    delivery(marketing, state=25, modified_at=CLOCK.now() - timedelta(hours=1))
    (plan,) = planned(marketing, "delivery.stuck")
    marketing.execute("update delivery set state = 85")
    done = heal.treat(surgery(marketing), plan)
    assert (done.outcome, "is stopped by now" in done.after) == ("failed", True)
    (again,) = planned(marketing, "feed.unfolded")  # not a check of this role: the finding stays as it is
    assert "done 1 times within a day" in again.why_not
    with pytest.raises(Conflict, match="not done twice so soon"):
        heal.treat(surgery(marketing), again)
    with pytest.raises(Conflict, match="it failed"):
        heal.undo(surgery(marketing), done.finding_id)


def test_pauses_double() -> None:
    now = CLOCK.now()
    assert [pause([now] * n) for n in range(4)] == [timedelta(minutes=minutes) for minutes in (0, 15, 30, 60)]
    assert pause([now] * 100) == timedelta(hours=6)


def test_nothing_was_done_about_it(marketing: Patient) -> None:
    with pytest.raises(NotFound, match="dry-run"):
        heal.undo(surgery(marketing), 99)


# -- a mid


def staged(mid: Patient, messages: int = 4) -> int:
    """A delivery with pending messages in one batch that a process that is gone had leased."""
    number = MidDatabase(mid.database, 1, "", ManualClock(CLOCK.now())).delivery(messages=messages)
    mid.execute(
        "insert into dispatch_batch (account_id, delivery_id, destination, ready_at, ids, owner, expires_at, token) "
        "values (1, %s, 'd0.test', now(), (select array_agg(id) from message), 'mta-gone', now() - interval '6 min', 1)",
        number,
    )
    return number


def test_leases_of_a_lost_machine_are_taken_back_and_its_messages_named(mid: Patient) -> None:
    staged(mid)
    done = treat(mid, "lease.expired")
    assert "4 messages uncertain" in done.after
    assert mid.execute("select state, count(*) from message group by 1") == [(61, 4)] or mid.execute(
        "select state, count(*) from message group by 1"
    ) == [(62, 4)]
    assert mid.see("lease.expired") == []


def test_nothing_is_taken_from_a_living_process(mid: Patient) -> None:
    staged(mid)
    (plan,) = planned(mid, "lease.expired")
    mid.execute(
        "insert into process (name, kind, host, pid, executor) values ('mta@mid1.2', 'mta', 'there', 2, 'mta-gone')"
    )
    assert "lives" in heal.treat(surgery(mid), plan).after
    assert mid.execute("select count(*) from message where state = 6") == [(4,)]


def test_a_journal_that_nobody_holds_is_replayed(mid: Patient) -> None:
    number = staged(mid)
    ((batch,),) = mid.execute("select id from dispatch_batch")
    journal = Journal(mid.facts().journals, "mta-gone", CLOCK.boot_id())
    for id_ in (1, 2):
        journal.started(Start(1, number, id_, batch, 1))
    journal.outcome(
        Outcome(
            account_id=1, delivery_id=number, id=1, batch_id=batch, token=1, event="accepted", reason=0, reply="250 ok",
            stage="body", event_at=CLOCK.now(), message_id="m1@shop.test", counts_attempt=True, again_at=None, destination="d1.test",
        )
    )  # fmt: skip
    journal.close(settled=False)
    before = time.time() - 300
    for path in (journal.directory, *journal.directory.glob("*.log")):
        os.utime(path, (before, before))
    done = treat(mid, "journal.pending")
    assert "1 outcomes recorded, 1 messages uncertain" in done.after
    assert mid.execute("select state from message where id = 1") == [(1,)]
    assert mid.see("journal.pending") == []


def test_a_treatment_that_fails_by_a_fault_of_ours_is_written_down_and_supervisors_are_told(mid: Patient) -> None:
    number = staged(mid)
    ((batch,),) = mid.execute("select id from dispatch_batch")
    mid.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'a fault of ours'; end $$"
    )
    mid.execute("create trigger refuse before insert on journal_applied for each row execute function refuse()")
    journal = Journal(mid.facts().journals, "mta-gone", CLOCK.boot_id())
    journal.started(Start(1, number, 1, batch, 1))
    journal.close(settled=False)
    before = time.time() - 300
    for path in (journal.directory, *journal.directory.glob("*.log")):
        os.utime(path, (before, before))
    (mid.config.home / "midsource.toml").write_text(
        f"[instances.{mid.instance.name}]\nrole = 'mid'\nport = 1\n", encoding="utf-8"
    )
    for _ in range(2):
        doctor.run_once(context(mid), doctor.Settings(only="journal"))
    ((what, after, outcome),) = mid.execute("select what, after, outcome from healing")
    assert (what, outcome) == ("replay the journal of mta-gone", "failed")
    assert after == "RaiseException: a fault of ours"


def test_batches_are_numbered_tallies_folded_partitions_made(mid: Patient) -> None:
    mid.execute(
        "insert into feed_batch (account_id, day, rows, deliveries, created_at) select 1, current_date, 0, '{}', now() - interval '1 h' "
        "from generate_series(1, 21500)"
    )
    assert [one.check for one in mid.see("feed")] == ["feed.unnumbered", "feed.unfolded"]
    plan = next(one for one in planned(mid, "feed.unfolded") if one.row.finding.check == "feed.unfolded")
    assert heal.treat(surgery(mid), plan).outcome == "done"
    assert mid.see("feed.unfolded") == []
    plan = next(one for one in planned(mid, "feed.unnumbered") if one.row.finding.check == "feed.unnumbered")
    assert heal.treat(surgery(mid), plan).after == "21500 numbered"
    mid.execute(f"drop table outcome_{CLOCK.now():%Y%m%d}")
    plan = next(one for one in planned(mid, "database.partitions") if one.row.finding.check == "database.partitions")
    assert heal.treat(surgery(mid), plan).outcome == "done"
    assert mid.see("database.partitions") == []


def test_a_session_of_ours_that_idles_in_a_transaction_is_ended_and_no_other(mid: Patient) -> None:
    with (
        psycopg.connect(mid.database.dsn, application_name="worker@mid1") as ours,
        psycopg.connect(mid.database.dsn, application_name="psql") as theirs,
    ):
        for conn in (ours, theirs):
            conn.execute("select 1")
        later = CLOCK.now() + timedelta(minutes=6)
        found = {one.subject.split()[0]: one for one in _as_of(mid, later)}
        assert found["worker@mid1"].healable
        treatment = replace(TREATMENTS["database.transactions"])
        with mid.database.transaction() as conn, pytest.raises(Conflict, match="none of ours"):
            treatment.act(conn, surgery(mid), found["psql"])
        with mid.database.transaction() as conn, pytest.raises(Conflict, match="does not idle"):
            treatment.act(conn, surgery(mid), found["worker@mid1"])  # not for five minutes


def _as_of(mid: Patient, later: datetime) -> list[Finding]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(database, "WRITES_FOR", timedelta(0))
        return list(mid.see("database.transactions", later))


# -- by itself


def context(patient: Patient) -> Context:
    said: list[str] = []
    return Context(
        database=patient.database, clock=CLOCK, home=patient.config.home, instance=patient.instance.name, subject=0,
        say=lambda _level, line: said.append(line), beat=lambda: None, progress=lambda _values: None,
    )  # fmt: skip


def test_the_workflow_heals_what_is_safe_and_seen_twice_unless_it_may_not(marketing: Patient) -> None:
    (marketing.config.home / "midsource.toml").write_text(
        "[instances.marketing]\nrole = 'marketing'\nport = 1\n", encoding="utf-8"
    )
    marketing.execute("delete from pointer where stream = 'logs'")
    marketing.execute("update option set value = 'yesterday' where name like '%%LastDelivery%%'")
    doctor.run_once(context(marketing), doctor.Settings(only="pointer"))
    assert marketing.execute("select count(*) from healing") == [(0,)], "one look may be passing"
    marketing.execute("insert into option (name, value, modified_by) values ('NmsDoctor_AutoHeal', '0', 't')")
    doctor.run_once(context(marketing), doctor.Settings(only="pointer"))
    assert marketing.execute("select count(*) from healing") == [(0,)], "the option forbids it"
    marketing.execute("delete from option where name = 'NmsDoctor_AutoHeal'")
    doctor.run_once(context(marketing), doctor.Settings(only="pointer"))
    assert marketing.execute("select check_name, by, outcome from healing") == [
        ("pointer.missing", SYSTEM.name, "done")
    ]
    assert [found.check for found in marketing.see("pointer")] == ["pointer.option"], "what an operator wrote is left"


def test_what_is_muted_is_left_alone(marketing: Patient) -> None:
    marketing.execute("delete from pointer where stream = 'logs'")
    assert len(planned(marketing, "pointer.missing", alone=True, looks=2)) == 1
    marketing.execute("update finding set muted_until = now() + interval '1 h'")
    assert planned(marketing, "pointer.missing", alone=True) == []
    assert len(planned(marketing, "pointer.missing")) == 1

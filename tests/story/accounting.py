"""Everybody of a delivery, compared one by one in three places: the sink, the mid's ledger, marketing's delivery log.

None may be lost: every targeted person has one log row, every one handed over one ledger row, every one sent a copy in the
sink. None may get two, except whom the ledger has named uncertain. Both sides agree on each row, and every counter
equals the rows it counts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.story.home import Home

from midsource.model.message import MessageState

IGNORED, SENT, UNCERTAIN = MessageState.IGNORED, MessageState.SENT, MessageState.UNCERTAIN
_ROW = "id, email, state, reason, attempts, revision, reply, message_id"
_TALLY = """
with parts as (
  select state, n from message_total where delivery_id = %(delivery)s
  union all
  select (t ->> 3)::smallint, (t ->> 4)::bigint from feed_batch, jsonb_array_elements(tally) t
   where not folded and (t ->> 0)::bigint = %(delivery)s
  union all
  select (t ->> 2)::smallint, -(t ->> 4)::bigint from feed_batch, jsonb_array_elements(tally) t
   where not folded and (t ->> 0)::bigint = %(delivery)s and t ->> 2 is not null)
select state, sum(n)::bigint from parts group by state having sum(n) <> 0
"""


@dataclass(frozen=True, slots=True)
class Accounted:
    """What became of everybody: message ids by state, copies in the sink by id, ids that were ever uncertain."""

    states: dict[MessageState, frozenset[int]]
    copies: Counter[int]
    ever_uncertain: frozenset[int]
    domains: dict[int, str]

    def ids(self, state: MessageState) -> frozenset[int]:
        """Return the messages in this state."""
        return self.states.get(state, frozenset())


def account_everybody(home: Home, delivery: int) -> Accounted:
    """Compare the three sides of a delivery that is over, person by person; fail with the first difference by name."""
    home.wait_until(lambda: _revisions(home, delivery), "the log has the last revision of each message", 30)
    log = {
        row[0]: row
        for row in home.rows("marketing", f"select {_ROW} from broad_log where delivery_id = %s", (delivery,))
    }
    ledger = {
        row[0]: row for row in home.rows("mid1", f"select {_ROW} from message where delivery_id = %s", (delivery,))
    }
    found = Accounted(
        states={s: frozenset(i for i, row in log.items() if row[2] == s) for s in MessageState},
        copies=_copies(home, delivery, log),
        ever_uncertain=frozenset(
            row[0]
            for row in home.rows(
                "mid1", "select distinct id from outcome where delivery_id = %s and new_state = 62", (delivery,)
            )
        ),
        domains={i: str(row[1]).rpartition("@")[2] for i, row in log.items()},
    )
    _nobody_is_lost(home, delivery, log, ledger)
    _nobody_got_two(found)
    _counters_equal_the_rows(home, delivery, log, ledger)
    return found


def _revisions(home: Home, delivery: int) -> bool:
    statement = "select coalesce(sum(revision), 0) from {} where delivery_id = %s"
    here = home.number("marketing", statement.format("broad_log"), (delivery,))
    return here == home.number("mid1", statement.format("message"), (delivery,))


def _copies(home: Home, delivery: int, log: dict[int, tuple[Any, ...]]) -> Counter[int]:
    copies: Counter[int] = Counter()
    for fact in home.truth(delivery):
        number = int(str(fact["id"]).rpartition(".")[2])
        assert number in log, f"the sink holds a message nobody was meant to get: {fact}"
        assert fact["rcpt"] == log[number][1], f"message {number} went to the wrong person: {fact}"
        copies[number] += 1
    return copies


def _nobody_is_lost(
    home: Home, delivery: int, log: dict[int, tuple[Any, ...]], ledger: dict[int, tuple[Any, ...]]
) -> None:
    [(targeted, excluded, handed_over, refused, on_list)] = home.rows(
        "marketing",
        "select targeted, excluded, handed_over, refused, (select count(*) from list_member m join recipient_list l "
        "on l.id = m.list_id where l.name = d.target_list) from delivery d where id = %s",
        (delivery,),
    )
    people = home.number(
        "marketing", "select count(distinct recipient_id) from broad_log where delivery_id = %s", (delivery,)
    )
    assert sorted(log) == list(range(1, targeted + 1)), "log ids are 1 to the number targeted"
    assert people == targeted == on_list, "everybody on the list has exactly one log row"
    ignored = {i for i, row in log.items() if row[2] == IGNORED}
    assert len(ignored) == excluded
    assert all(log[i][3] for i in ignored), "each exclusion has its reason"
    assert targeted == handed_over + excluded
    assert not refused
    assert set(ledger) == set(log) - ignored, "the ledger has one row for each message handed over"
    differing = [(log[i], ledger[i]) for i in ledger if log[i] != ledger[i]]
    assert not differing, f"{len(differing)} rows differ between log and ledger, as {differing[0]}"


def _nobody_got_two(found: Accounted) -> None:
    twice = {i for i, n in found.copies.items() if n > 1}
    assert twice <= found.ever_uncertain, (
        f"got two copies and were never uncertain: {sorted(twice - found.ever_uncertain)}"
    )
    got = frozenset(found.copies)
    assert found.ids(SENT) <= got, f"called sent, and not in the sink: {sorted(found.ids(SENT) - got)[:10]}"
    unnamed = got - found.ids(SENT) - found.ids(UNCERTAIN)
    assert not unnamed, f"in the sink, and neither sent nor uncertain: {sorted(unnamed)[:10]}"


def _counters_equal_the_rows(
    home: Home, delivery: int, log: dict[int, tuple[Any, ...]], ledger: dict[int, tuple[Any, ...]]
) -> None:
    here = home.rows(
        "marketing",
        "select state, sum(n)::bigint from broad_log_total where delivery_id = %s group by state having sum(n) <> 0",
        (delivery,),
    )
    assert dict(here) == Counter(row[2] for row in log.values()), "marketing's counters"
    assert dict(home.rows("mid1", _TALLY, {"delivery": delivery})) == Counter(row[2] for row in ledger.values()), (
        "the mid's counters"
    )
    [(figures, open_parts)] = home.rows(
        "marketing",
        "select figures, (select count(*) from upload_part where delivery_id = d.id and state = 'stored') from delivery d where id = %s",
        (delivery,),
    )
    told = {MessageState[label.upper()]: n for label, n in figures.items() if n}
    assert told == Counter(MessageState(row[2]) for row in ledger.values()), "the figures the mid told"
    assert open_parts == 0, "every part is acknowledged"
    assert home.number("mid1", "select count(*) from dispatch_batch where delivery_id = %s", (delivery,)) == 0

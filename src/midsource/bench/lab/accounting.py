"""Everybody of a delivery, compared one by one in three places: the sink, the mid's ledger, marketing's delivery log.

None may be lost: every targeted person has one log row, every one handed over one ledger row, every one sent a copy in the
sink. None may get two, except whom the ledger has named uncertain. Both sides agree on each row, and every counter
equals the rows it counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from midsource.model.errors import Failed
from midsource.model.message import MessageState

IGNORED, SENT, UNCERTAIN = MessageState.IGNORED, MessageState.SENT, MessageState.UNCERTAIN
_LOG = "select id, email, state, reason, attempts, revision, reply, message_id from broad_log where delivery_id = %s"
_LEDGER = _LOG.replace("broad_log", "message")
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


class Difference(Failed):
    """The three places do not say the same of somebody."""


class Ground(Protocol):
    """Where a delivery was sent: both databases, and the sink's own truth (one fact a message and recipient)."""

    def rows(
        self, instance: str, statement: str, params: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Query the database of an instance."""

    def truth(self, delivery: int) -> list[dict[str, Any]]:
        """Return what the sink holds of a delivery."""

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Wait until a condition holds."""


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


def account_everybody(home: Ground, delivery: int) -> Accounted:
    """Compare the three sides of a delivery that is over, person by person; raise Difference with the first one by name."""
    home.wait_until(lambda: _revisions(home, delivery), "the log has the last revision of each message", 30)
    log = {row[0]: row for row in home.rows("marketing", _LOG, (delivery,))}
    ledger = {row[0]: row for row in home.rows("mid1", _LEDGER, (delivery,))}
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


def _revisions(home: Ground, delivery: int) -> bool:
    statement = "select coalesce(sum(revision), 0) from {} where delivery_id = %s"
    here = _number(home, "marketing", statement.format("broad_log"), (delivery,))
    return here == _number(home, "mid1", statement.format("message"), (delivery,))


def _copies(home: Ground, delivery: int, log: dict[int, tuple[Any, ...]]) -> Counter[int]:
    copies: Counter[int] = Counter()
    for fact in home.truth(delivery):
        number = int(str(fact["id"]).rpartition(".")[2])
        _must(number in log, f"the sink holds a message nobody was meant to get: {fact}")
        _must(fact["rcpt"] == log[number][1], f"message {number} went to the wrong person: {fact}")
        copies[number] += 1
    return copies


def _nobody_is_lost(
    home: Ground, delivery: int, log: dict[int, tuple[Any, ...]], ledger: dict[int, tuple[Any, ...]]
) -> None:
    [(targeted, excluded, handed_over, refused, on_list)] = home.rows(
        "marketing",
        "select targeted, excluded, handed_over, refused, (select count(*) from list_member m join recipient_list l "
        "on l.id = m.list_id where l.name = d.target_list) from delivery d where id = %s",
        (delivery,),
    )
    people = _number(
        home, "marketing", "select count(distinct recipient_id) from broad_log where delivery_id = %s", (delivery,)
    )
    _must(sorted(log) == list(range(1, targeted + 1)), "log ids are 1 to the number targeted")
    _must(people == targeted == on_list, "everybody on the list has exactly one log row")
    ignored = {i for i, row in log.items() if row[2] == IGNORED}
    _must(len(ignored) == excluded, f"{excluded} were excluded, {len(ignored)} log rows say so")
    _must(all(log[i][3] for i in ignored), "each exclusion has its reason")
    _must(targeted == handed_over + excluded, f"targeted {targeted}, handed over {handed_over}, excluded {excluded}")
    _must(not refused, f"the mid refused {refused} rows")
    _must(set(ledger) == set(log) - ignored, "the ledger has one row for each message handed over")
    differing = [(log[i], ledger[i]) for i in ledger if log[i] != ledger[i]]
    _must(not differing, f"{len(differing)} rows differ between log and ledger, as {differing[:1]}")


def _nobody_got_two(found: Accounted) -> None:
    twice = {i for i, n in found.copies.items() if n > 1}
    _must(
        twice <= found.ever_uncertain,
        (f"got two copies and were never uncertain: {sorted(twice - found.ever_uncertain)}"),
    )
    got = frozenset(found.copies)
    _must(found.ids(SENT) <= got, f"called sent, and not in the sink: {sorted(found.ids(SENT) - got)[:10]}")
    unnamed = got - found.ids(SENT) - found.ids(UNCERTAIN)
    _must(not unnamed, f"in the sink, and neither sent nor uncertain: {sorted(unnamed)[:10]}")


def _counters_equal_the_rows(
    home: Ground, delivery: int, log: dict[int, tuple[Any, ...]], ledger: dict[int, tuple[Any, ...]]
) -> None:
    here = home.rows(
        "marketing",
        "select state, sum(n)::bigint from broad_log_total where delivery_id = %s group by state having sum(n) <> 0",
        (delivery,),
    )
    _must(dict(here) == Counter(row[2] for row in log.values()), "marketing's counters")
    _must(
        dict(home.rows("mid1", _TALLY, {"delivery": delivery})) == Counter(row[2] for row in ledger.values()),
        ("the mid's counters"),
    )
    [(figures, open_parts)] = home.rows(
        "marketing",
        "select figures, (select count(*) from upload_part where delivery_id = d.id and state = 'stored') from delivery d where id = %s",
        (delivery,),
    )
    told = {MessageState[label.upper()]: n for label, n in figures.items() if n}
    _must(told == Counter(MessageState(row[2]) for row in ledger.values()), "the figures the mid told")
    _must(open_parts == 0, "every part is acknowledged")
    waiting = _number(home, "mid1", "select count(*) from dispatch_batch where delivery_id = %s", (delivery,))
    _must(not waiting, f"{waiting} batches wait, and nothing is to be sent")


def _must(holds: object, what: str) -> None:
    if not holds:
        raise Difference(what, "keep both databases and the logs, and report it")


def _number(home: Ground, instance: str, statement: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> int:
    return int(home.rows(instance, statement, params)[0][0])

"""The SMTP client's state machine, as data: what each reply means at each step.

A *step* is a thing we sent (or wait for) that gets exactly one reply; replies come in the order of the steps (RFC 2920
3.1), so the state of a session is the queue of its steps without reply. ``TABLE`` is total: whatever a server answers
has a row, and none of the rows is an exception. The verbs of `Action` are performed by `session.ClientSession`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType

from midsource.model.outcome import Stage


class _Looked(Enum):
    """Members are looked up for every reply: hashed by identity, as they are compared (Enum hashes names, in Python)."""

    __hash__ = object.__hash__


class Step(_Looked):
    """What waits for one reply."""

    BANNER = auto()
    EHLO = auto()
    HELO = auto()
    STARTTLS = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    BODY = auto()  # body and final dot
    LONE_DOT = auto()  # ends a DATA that must carry nothing (RFC 2920 3.1)
    RSET = auto()
    QUIT = auto()


class Kind(_Looked):
    """The severities of a reply, and the one that ends every conversation."""

    POSITIVE = auto()
    INTERMEDIATE = auto()
    TRANSIENT = auto()
    PERMANENT = auto()
    CLOSING = auto()  # 421: the server hangs up, whatever we were saying (RFC 5321 3.8)


class Action(_Looked):
    """What the session does about it."""

    GREET = auto()  # say EHLO
    LEARN = auto()  # note the extensions, then STARTTLS or open
    FALL_BACK = auto()  # say HELO: the server is older than 1995 or feigns it
    OPEN = auto()  # no extensions; ready for messages
    SHAKE_HANDS = auto()  # the shell starts TLS
    STAY_PLAIN = auto()  # STARTTLS was offered and refused: go on where the policy allows it
    ADVANCE = auto()  # the next command of this message, unless it was sent along already
    TAKE_BODY = auto()  # the server waits for the message
    ACCEPTED = auto()  # the message is theirs now
    REFUSED = auto()  # this message got its answer; the session goes on
    DONE = auto()  # nothing depends on this reply
    GONE = auto()  # the answer to QUIT, any answer
    CONFUSED = auto()  # a reply that has no meaning here: theirs or our place in the conversation is lost
    END = auto()  # the session is over, for the reason the reply gives


_K, _A = Kind, Action


def _row(positive: Action, intermediate: Action, transient: Action, permanent: Action) -> Mapping[Kind, Action]:
    """Return one step's row; 421 ends the session everywhere."""
    return MappingProxyType(
        {
            _K.POSITIVE: positive,
            _K.INTERMEDIATE: intermediate,
            _K.TRANSIENT: transient,
            _K.PERMANENT: permanent,
            _K.CLOSING: _A.END,
        }
    )


TABLE: Mapping[Step, Mapping[Kind, Action]] = MappingProxyType(
    {
        Step.BANNER: _row(_A.GREET, _A.CONFUSED, _A.END, _A.END),
        Step.EHLO: _row(_A.LEARN, _A.CONFUSED, _A.END, _A.FALL_BACK),
        Step.HELO: _row(_A.OPEN, _A.CONFUSED, _A.END, _A.END),
        Step.STARTTLS: _row(_A.SHAKE_HANDS, _A.CONFUSED, _A.STAY_PLAIN, _A.STAY_PLAIN),
        Step.MAIL: _row(_A.ADVANCE, _A.CONFUSED, _A.REFUSED, _A.REFUSED),
        Step.RCPT: _row(_A.ADVANCE, _A.CONFUSED, _A.REFUSED, _A.REFUSED),
        Step.DATA: _row(_A.CONFUSED, _A.TAKE_BODY, _A.REFUSED, _A.REFUSED),
        Step.BODY: _row(_A.ACCEPTED, _A.CONFUSED, _A.REFUSED, _A.REFUSED),
        Step.LONE_DOT: _row(_A.DONE, _A.CONFUSED, _A.DONE, _A.DONE),
        Step.RSET: _row(_A.DONE, _A.CONFUSED, _A.DONE, _A.DONE),
        Step.QUIT: dict.fromkeys(Kind, _A.GONE),
    }
)
"""(step, kind of reply) to the action."""

STAGE: Mapping[Step, Stage] = MappingProxyType(
    {
        Step.BANNER: Stage.BANNER,
        Step.EHLO: Stage.EHLO,
        Step.HELO: Stage.EHLO,
        Step.STARTTLS: Stage.TLS,
        Step.MAIL: Stage.MAIL,
        Step.RCPT: Stage.RCPT,
        Step.DATA: Stage.DATA,
        Step.BODY: Stage.BODY,
        Step.LONE_DOT: Stage.DATA,
        Step.RSET: Stage.MAIL,
        Step.QUIT: Stage.MAIL,
    }
)
"""The stage an answer or a loss at a step is reported with."""

_KIND_OF_DIGIT = {2: Kind.POSITIVE, 3: Kind.INTERMEDIATE, 4: Kind.TRANSIENT, 5: Kind.PERMANENT}
KIND: Mapping[int, Kind] = {code: _KIND_OF_DIGIT[code // 100] for code in range(200, 600)} | {421: Kind.CLOSING}
"""The kind of a reply by its code, from 200 to 599 (the parser lets no other pass)."""

"""From a ledger row to the bytes that leave: personalised, with links and identity, signed. Runs in a few threads.

A delivery is compiled once and kept (`Prepared`, in a bounded cache); `render` then does a batch of its messages. What
identifies a message is made of its account, delivery and id alone, so every try at it is the same message to the world:

- ``Message-ID``: a MAC over these, at the sender's domain. A provider that drops repeated ids drops our second copy.
- ``X-Midsource-Id: <account>.<delivery>.<id>``: compares what a sink holds with the ledger.
- the unsubscribe token: the same three numbers and 128 bits of MAC for this purpose alone.

A recipient whose data break the content is an `Unrendered`, of that recipient alone; content that does not compile at
all makes every message of the delivery one. Neither ever counts against the person.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any, TypeAlias

import msgspec
import structlog

from midsource.mail.content import Content, RenderProblem
from midsource.mail.dkim import DkimKey, Due
from midsource.mail.skeleton import RecipientEnvelope, Skeleton, WireMessage
from midsource.mid import dispatch, dkim_keys
from midsource.mid.dispatch import DeliveryKey, Message
from midsource.model.clock import Clock
from midsource.model.errors import MidsourceError
from midsource.model.outcome import MAX_REPLY_TEXT
from midsource.policy.retry import RetryRule
from midsource.security.keys import HomeKey
from midsource.store.database import Connection
from midsource.wire import identity
from midsource.wire.schema import DeliverySpec

MAX_PREPARED = 64
"""Deliveries kept compiled: about 1 MB each with large content."""
PREPARED_SECONDS = 600.0
"""How long a delivery's content and keys are kept: a DKIM key that is replaced is used no longer (the field's cache)."""
SIGNED_TOGETHER = 50
"""Composed first, then signed, so that either kind of work finds its code in the core's caches: of 420 us of a signed message
50 in a row saved 49 and ten 23. Costs 1 MB of bodies in each rendering thread."""
UNSUBSCRIBE = "unsubscribe token"
MESSAGE_ID = "message id"
MAC_BYTES = 16

_log = structlog.get_logger("midsource.mta")
_IDENTITY = struct.Struct(">IQQ")
_values: Callable[[str], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode


class Rendered(msgspec.Struct, frozen=True):
    """A message ready to go: ``mail_from`` and wire form, already free of leading dots.

    ``message_id``: what the ledger keeps of it, DERIVED where both halves can compute it (wire/identity.py).
    """

    id: int
    mail_from: str
    message_id: str
    wire: bytes


class Unrendered(msgspec.Struct, frozen=True):
    """A message that cannot be made, and why. ``is_bug``: our code broke, which content or data alone should never do."""

    id: int
    why: str
    is_bug: bool = False


Result: TypeAlias = Rendered | Unrendered


@dataclass(frozen=True, slots=True)
class Tokens:
    """What makes the identities of messages: keys derived from the home's, one for each purpose."""

    unsubscribe_key: bytes
    message_id_key: bytes

    @classmethod
    def of(cls, home_key: HomeKey) -> Tokens:
        """Derive them."""
        return cls(home_key.derive(UNSUBSCRIBE), home_key.derive(MESSAGE_ID))

    def unsubscribe(self, account_id: int, delivery_id: int, id_: int) -> str:
        """Return the token in this message's unsubscribe link: 48 URL-safe characters."""
        identity = _IDENTITY.pack(account_id, delivery_id, id_)
        return base64.urlsafe_b64encode(identity + _mac(self.unsubscribe_key, identity)).decode()

    def read_unsubscribe(self, token: str) -> tuple[int, int, int] | None:
        """Return (account, delivery, id) of a token of ours, None for anything else."""
        try:
            raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
            account_id, delivery_id, id_ = _IDENTITY.unpack(raw[:-MAC_BYTES])
        except (ValueError, struct.error):
            return None
        good = hmac.compare_digest(self.unsubscribe(account_id, delivery_id, id_).encode(), token.encode())
        return (account_id, delivery_id, id_) if good else None

    def message_id(self, account_id: int, delivery_id: int, id_: int, domain: str) -> str:
        """Return the Message-ID of a message whose delivery came without a key for them, angle brackets included."""
        mac = _mac(self.message_id_key, _IDENTITY.pack(account_id, delivery_id, id_))
        return f"<{mac.hex()}@{domain}>"


def _mac(key: bytes, identity: bytes) -> bytes:
    """Return keyed BLAKE2b (RFC 7693): unlike HMAC in OpenSSL it keeps the interpreter for the microsecond it takes."""
    return hashlib.blake2b(identity, key=key, digest_size=MAC_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A delivery ready to be rendered. ``problem``: why nothing of it can be; ``skeleton`` is None then."""

    key: DeliveryKey
    mail_from: str
    domain: str
    unsubscribe_url: str
    mirror_url: str
    retry: RetryRule
    valid_until: datetime | None
    resends: bool
    message_key: bytes
    keys: tuple[DkimKey, ...]
    skeleton: Skeleton | None
    problem: str = ""


class Deliveries:
    """Prepared deliveries by key, the most recently used MAX_PREPARED, each for PREPARED_SECONDS. Safe for several threads."""

    def __init__(self, home_key: HomeKey, clock: Clock) -> None:
        self._home_key = home_key
        self._clock = clock
        self._kept: OrderedDict[DeliveryKey, tuple[Prepared, float]] = OrderedDict()
        self._lock = Lock()

    def get(self, conn: Connection, key: DeliveryKey) -> Prepared | None:
        """Return the delivery, compiling it where needed; None where the database has none."""
        with self._lock:
            if (known := self._kept.get(key)) is not None and known[1] > self._clock.boot_seconds():
                self._kept.move_to_end(key)
                return known[0]
        row = dispatch.delivery(conn, key)
        if row is None:
            return None
        made = prepare(key, row, lambda domain: dkim_keys.keys_of(conn, self._home_key, domain))
        with self._lock:
            self._kept[key] = made, self._clock.boot_seconds() + PREPARED_SECONDS
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_PREPARED:
                self._kept.popitem(last=False)
        return made


def prepare(key: DeliveryKey, row: dispatch.Delivery, keys_of: Callable[[str], tuple[DkimKey, ...]]) -> Prepared:
    """Compile a delivery. Content or keys that cannot be used are its ``problem``, not an exception."""
    spec = msgspec.json.decode(row.spec, type=DeliverySpec)
    domain = spec.from_address.rpartition("@")[2].lower()
    skeleton: Skeleton | None = None
    keys: tuple[DkimKey, ...] = ()
    problem = ""
    try:
        skeleton, keys = _skeleton(key, spec), keys_of(domain)
    except MidsourceError as exc:
        skeleton, problem = None, str(exc)
    return Prepared(
        key=key,
        mail_from=spec.from_address,
        domain=domain,
        unsubscribe_url=spec.unsubscribe_url,
        mirror_url=spec.mirror_url,
        retry=RetryRule(spec.retry_count, spec.retry_period_seconds),
        valid_until=row.valid_until,
        resends=spec.uncertain_policy == "resend",
        message_key=bytes.fromhex(spec.message_key),
        keys=keys,
        skeleton=skeleton,
        problem=problem,
    )


def render(prepared: Prepared, messages: Sequence[Message], tokens: Tokens, at: datetime) -> list[Result]:
    """Render and sign a batch of one delivery's messages, dated ``at``. What breaks our code is a bug, of that message alone."""
    made: list[Result] = []
    together = SIGNED_TOGETHER if prepared.keys else 1
    for first in range(0, len(messages), together):
        composed = [_composed(prepared, message, tokens, at) for message in messages[first : first + together]]
        made += [_signed(prepared, one) if isinstance(one, _Composed) else one for one in composed]
    return made


class _Composed(msgspec.Struct, frozen=True):
    """A message with everything but its signatures."""

    id: int
    message_id: str
    wire: WireMessage
    due: list[Due]


def _bug(prepared: Prepared, id_: int, error: Exception) -> Unrendered:
    """Log what broke our code, and say so."""
    where = traceback.extract_tb(error.__traceback__)[-1]  # and not what it says: that may be somebody's data
    why = f"a fault of ours: {type(error).__module__}.{type(error).__name__}"
    _log.error(
        "render.failed", action="render", delivery=prepared.key[1], message=id_, why=why,
        where=f"{where.filename}:{where.lineno}",
    )  # fmt: skip
    return Unrendered(id_, why, is_bug=True)


def _composed(prepared: Prepared, message: Message, tokens: Tokens, at: datetime) -> _Composed | Unrendered:
    if prepared.skeleton is None:
        return Unrendered(message.id, prepared.problem[:MAX_REPLY_TEXT])
    account_id, delivery_id = prepared.key
    try:
        message_id = (
            identity.message_id(prepared.message_key, message.id, prepared.mail_from)
            if prepared.message_key
            else tokens.message_id(account_id, delivery_id, message.id, prepared.domain)
        )
        envelope = RecipientEnvelope(message.email, message_id, at, _links(prepared, message.id, tokens))
        made = prepared.skeleton.render(_values(message.data), envelope)
        kept = identity.DERIVED if prepared.message_key else message_id
        return _Composed(message.id, kept, made, made.due(prepared.keys, at))
    except (RenderProblem, msgspec.DecodeError) as problem:
        return Unrendered(message.id, str(problem)[:MAX_REPLY_TEXT])
    except Exception as error:  # noqa: BLE001 - the process and every other message go on
        return _bug(prepared, message.id, error)


def _signed(prepared: Prepared, made: _Composed) -> Result:
    account_id, delivery_id = prepared.key
    first = f"X-Midsource-Id: {account_id}.{delivery_id}.{made.id}\r\n".encode()
    try:
        wire = made.wire.behind(first, *[one.signed() for one in made.due])
    except Exception as error:  # noqa: BLE001 - the process and every other message go on
        return _bug(prepared, made.id, error)
    return Rendered(made.id, prepared.mail_from, made.message_id, wire)


def _links(prepared: Prepared, id_: int, tokens: Tokens) -> Mapping[str, str]:
    token = tokens.unsubscribe(*prepared.key, id_)
    return {
        "unsubscribe": prepared.unsubscribe_url.replace("{token}", token),
        "mirror": prepared.mirror_url.replace("{token}", token),
    }


def _skeleton(key: DeliveryKey, spec: DeliverySpec) -> Skeleton:
    content = Content(
        subject=spec.subject,
        html=spec.html,
        text=spec.text,
        from_name=spec.from_name,
        from_address=spec.from_address,
        reply_to=spec.reply_to,
        headers=spec.headers,
    )
    return Skeleton.compile(
        content,
        boundary=_boundary(key, spec),
        delivery={"label": spec.label, "id": spec.id},
        brand={"name": spec.brand},
        one_click_url="{{ links.unsubscribe }}" if spec.unsubscribe_url else "",
    )


def _boundary(key: Sequence[int], spec: DeliverySpec) -> str:
    """Return a boundary that is the same each time a delivery is compiled, so a second try is the same message."""
    return hashlib.sha256(f"{key}{spec.label}".encode()).hexdigest()[:32]

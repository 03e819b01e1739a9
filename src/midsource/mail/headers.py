"""Header fields in wire form: safe, folded, encoded (RFC 5322, 2047, 6532), without the ``email`` package's cost.

Every function returns text for the right of ``Name: ``, folded with CRLF blank at 78 characters where it can be, and
raises ValueError (one clause) for a value that would break or forge a header: CR, LF, NUL and other controls are refused,
never dropped, so an injected value is seen and its message set aside.

Text in ASCII that a parser gives back unchanged stays readable; anything else becomes encoded words, cut between
characters, at most 75 long.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache

LINE_CHARS = 76
"""A line with an encoded word (RFC 2047, 2); plain lines keep the same limit, under the 78 that RFC 5322 asks for."""
MAX_VALUE_CHARS = 2_000
"""Characters of one rendered header value: a subject beyond 200 is cut by every reader."""
MAX_ADDRESS_CHARS = 254
"""RFC 5321, 4.5.3.1.3: a path of 256 with its angle brackets."""
MAX_LOCAL_BYTES = 64
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PLAIN = re.compile(r"(?! )(?!.*=\?)(?!.*  )[ -~]*(?<! )")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LOCAL = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+)*"
)
_DOMAIN = re.compile(
    r"(?=.{1,253}$)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)
_NAME = re.compile(r"[!-9;-~]{1,70}")
_URL = re.compile(r"(?:https?|mailto):[!#-;=?-~]+")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")
_REMEMBERED = 4_096
"""Encoded texts kept: subjects and names repeat within a delivery, and one takes about 400 bytes."""
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WORD_START = "=?utf-8?q?"
_WORD_ROOM = 75 - len(_WORD_START) - len("?=")
# Only what RFC 2047, 5 (3) allows in a phrase stays as it is, so one table serves every header.
_WORD_TABLE = {byte: f"={byte:02X}" for byte in range(256)}
_WORD_TABLE |= {ord(char): char for char in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/"}
_WORD_TABLE[ord(" ")] = "_"


def is_header_name(name: str) -> bool:
    """Whether ``name`` can be the name of a header field (RFC 5322, 3.6.8)."""
    return _NAME.fullmatch(name) is not None


def checked(value: str) -> str:
    """Return ``value``; raise ValueError where it holds a control character or is too long for a header."""
    control = _CONTROLS.search(value)
    if control is not None:
        raise ValueError(f"a control character (U+{ord(control[0]):04X}) cannot be in a header")
    if len(value) > MAX_VALUE_CHARS:
        raise ValueError(f"{len(value)} characters; a header takes {MAX_VALUE_CHARS}")
    return value


@lru_cache(_REMEMBERED)
def unstructured(name: str, text: str) -> str:
    """Return free text (Subject, X-…) for the header ``name``, which decodes to exactly ``text``."""
    checked(text)
    if not text:
        return ""
    if _PLAIN.fullmatch(text):
        folded = _fold_plain(text, len(name) + 2)
        if folded is not None:
            return folded
    return _encoded_words(text, len(name) + 2)


@lru_cache(_REMEMBERED)
def phrase(name: str, text: str) -> str:
    """Return a display name for an address in the header ``name``."""
    checked(text)
    if _ATOMS.fullmatch(text) and _PLAIN.fullmatch(text) and len(text) + len(name) < LINE_CHARS:
        return text
    if _PLAIN.fullmatch(text) and len(text) + len(name) < LINE_CHARS - 4:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return _encoded_words(text, len(name) + 2)


def address(value: str) -> str:
    """Return an address as it is written; raise ValueError where it is none.

    The domain is ASCII (A-labels), the local part may be UTF-8 (RFC 6532). Quoted local parts and address literals are
    refused: no list of people needs them, and they are how headers are forged.
    """
    local, at, domain = value.rpartition("@")
    if not at or not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain) or _CONTROLS.search(value):
        raise ValueError(f"'{_CONTROLS.sub('?', value[:MAX_ADDRESS_CHARS])}' is not an address")
    if len(value) > MAX_ADDRESS_CHARS or len(local.encode()) > MAX_LOCAL_BYTES:
        raise ValueError(f"an address of {len(value)} characters is too long")
    return value


def mailbox(name: str, display: str, at: str) -> str:
    """Return ``Display <address>`` for the header ``name``, or the address alone where there is no display name."""
    checked_address = address(at)
    if not display:
        return checked_address
    shown = phrase(name, display)
    used = len(name) + 2 + len(shown) if "\r\n" not in shown else len(shown) - shown.rfind("\n")
    glue = " " if used + len(checked_address) + 3 <= LINE_CHARS else "\r\n "
    return f"{shown}{glue}<{checked_address}>"


def message_id(value: str) -> str:
    """Return ``<left@right>``, given with or without its brackets; raise ValueError where it is none."""
    bracketed = value if value.startswith("<") else f"<{value}>"
    if len(bracketed) > 250 or not _MESSAGE_ID.fullmatch(bracketed):
        raise ValueError("the message id is not of the form token@domain")
    return bracketed


def url_list(*urls: str) -> str:
    """Return ``<url>, <url>`` (RFC 2369) with each URL on its own line; raise ValueError where one is none."""
    for url in urls:
        if len(url) > 900 or not _URL.fullmatch(url):  # 998 of a line less name, brackets and room to spare
            raise ValueError("a link in a header is an http, https or mailto URL in ASCII of at most 900 characters")
    return ",\r\n ".join(f"<{url}>" for url in urls)


def date(moment: datetime) -> str:
    """Return ``moment`` (aware) as RFC 5322 writes it, in UTC."""
    if moment.tzinfo is None:
        raise ValueError("a date in a header needs its zone")
    return _date_of_second(int(moment.timestamp()))


@lru_cache(64)
def _date_of_second(second: int) -> str:
    days, rest = divmod(second, 86_400)
    at = datetime.fromordinal(days + 719_163)  # 1970-01-01
    clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{_DAYS[at.weekday()]}, {at.day:02d} {_MONTHS[at.month - 1]} {at.year:04d} {clock} +0000"


def _fold_plain(text: str, used: int) -> str | None:
    """Fold at single blanks; None where a word is longer than a line."""
    if used + len(text) <= LINE_CHARS:
        return text
    lines, line, room = [], "", LINE_CHARS - used
    for word in text.split(" "):
        if len(word) > LINE_CHARS - 1 or (not line and len(word) > room):
            return None
        if not line:
            line = word
        elif len(line) + 1 + len(word) <= room:
            line += " " + word
        else:
            lines.append(line)
            line, room = word, LINE_CHARS - 1
    return "\r\n ".join([*lines, line])


def _encoded_words(text: str, used: int) -> str:
    words, word, room = [], "", min(_WORD_ROOM, LINE_CHARS - used - len(_WORD_START) - 2)
    for char in text:
        code = "".join([_WORD_TABLE[byte] for byte in char.encode()])
        if len(word) + len(code) > room:
            words.append(word)
            word, room = "", _WORD_ROOM - 1  # the blank that begins a folded line
        word += code
    return "\r\n ".join(f"{_WORD_START}{word}?=" for word in [*words, word])

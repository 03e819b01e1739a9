"""Quoted-printable (RFC 2045, 6.7) in pieces that can be joined in any order without looking at their neighbours.

Every piece begins and ends at the start of a line: what does not end in a line break of the text ends in a soft one
(``=`` CRLF), which decodes to nothing. So static text is encoded once per delivery, a value once per distinct value, and
a message is their concatenation.

What holds for every piece, hence for every concatenation:

- lines of at most 76 characters, CRLF only, ASCII only;
- no line begins with a dot (no dot-stuffing on any hop) or with ``From `` (no mbox quoting);
- no tab, no two blanks in a row, no blank at the end of a line: relaxed canonicalisation (RFC 6376, 3.4.4) changes nothing;
- decoding gives the text with every line break as CRLF: CR, LF and CRLF in the text are the same line break.
"""

from __future__ import annotations

import re

_SOFT_BREAK = "=\r\n"
_LINE_CHARS = 75
"""76 (RFC 2045, 6.7 rule 5) less the soft break's ``=``."""
_UNSAFE = re.compile(r"[^ !-<>-~]")
_TABLE = tuple(f"={byte:02X}" for byte in range(256))


def _escape(match: re.Match[str]) -> str:
    # A lone surrogate (JSON can carry one) has no UTF-8 form; the replacement character is what a reader would see.
    return "".join([_TABLE[byte] for byte in match[0].encode("utf-8", "replace")])


def _guard(line: str) -> str:
    """Encode a first character that would make the line special on its way."""
    if line.startswith("."):
        return "=2E" + line[1:]
    return "=46" + line[1:] if line.startswith("From ") else line


def _fold(line: str) -> list[str]:
    """Cut an encoded line into pieces of at most _LINE_CHARS characters, never inside an escape."""
    pieces = []
    line = _guard(line)
    while len(line) > _LINE_CHARS:
        cut = _LINE_CHARS
        if line[cut - 1] == "=":
            cut -= 1
        elif line[cut - 2] == "=":
            cut -= 2
        pieces.append(line[:cut])
        line = _guard(line[cut:])
    pieces.append(line)
    return pieces


def _is_plain(text: str) -> bool:
    """Whether ``text`` is one line that needs nothing: most values are, and looking costs a fifth of encoding."""
    return (
        0 < len(text) <= _LINE_CHARS
        and text.isascii()
        and text.isprintable()
        and "=" not in text
        and "  " not in text
        and not text.startswith((".", "From "))
    )


def encode_piece(text: str) -> str:
    """Return ``text`` as a self-contained piece; "" stays ""."""
    if _is_plain(text):
        return text + _SOFT_BREAK
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    out = []
    *whole, rest = text.split("\n")
    for line in whole:
        encoded = _UNSAFE.sub(_escape, line).replace("  ", " =20")
        if encoded.endswith(" "):
            encoded = encoded[:-1] + "=20"
        out.append(_SOFT_BREAK.join(_fold(encoded)) + "\r\n")
    if rest:
        out.append(_SOFT_BREAK.join(_fold(_UNSAFE.sub(_escape, rest).replace("  ", " =20"))) + _SOFT_BREAK)
    return "".join(out)

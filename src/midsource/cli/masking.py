"""What must never stand in a log line, taken out of it: people's addresses, keys, tokens, passwords.

The rule is that no line is *written* with one: lines hold ids. This is the second lock, for what we only pass on: a
traceback that quotes a row, a remote server's words, a library's message. An address keeps its domain, because that is what a
fault is often about: ``…@gmail.com``. Names of processes (``mta@mid1.2``) are no addresses and stay.
"""

from __future__ import annotations

import re
from typing import Any

MAX_DEPTH = 4
"""Of values inside values in one line; ours are flat. What is deeper is shown as text, and masked as such."""
HIDDEN = "…"

_LOCAL = r"[^\s@<>\"'(),;:=\[\]{}\\/…]{1,320}"
_ADDRESS = re.compile(rf"{_LOCAL}(@|%40)((?:[^\W_][\w-]*\.)+[^\W\d_]{{2,63}})")
_SECRETS = (
    re.compile(r"(://[^\s:/@]+:)[^\s@]+(?=@)"),
    re.compile(r"((?:authorization['\"]?[:=]\s*['\"]?)?bearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"((?:token|password|secret|csrf|api_key)['\"]?\s*[=:]\s*['\"]?)[^\s&'\",}]+", re.IGNORECASE),
)


def masked(text: str) -> str:
    """Return ``text`` without the local part of any address and without secrets that are named as such."""
    for secret in _SECRETS:
        text = secret.sub(rf"\g<1>{HIDDEN}", text)
    if "@" not in text and "%40" not in text:
        return text
    return _ADDRESS.sub(rf"{HIDDEN}\g<1>\g<2>", text)


def masked_value(value: Any, depth: int = 0) -> Any:
    """Return a value of a log line with every text in it masked; numbers and the like stay what they are."""
    if isinstance(value, str):
        return masked(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict) and depth < MAX_DEPTH:
        return {str(key): masked_value(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth < MAX_DEPTH:
        return [masked_value(inner, depth + 1) for inner in value]
    return masked(str(value))

"""Passwords of operators: which are taken, and argon2id with stated cost, a few at a time.

A hash holds its parameters and salt; when the parameters here are raised, a password is hashed again at its next log-in.
Each hash takes MEMORY_KIB for about 80 ms of one core, so ``Hashing`` lets AT_ONCE work and WAITING wait; whoever comes
beyond that is told to come again. Log-ins can slow each other down but never exhaust the memory of the process.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from itertools import pairwise

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from midsource.model.errors import UserError
from midsource.security.throttle import TooManyTries

TIME_COST = 4
MEMORY_KIB = 32_768
PARALLELISM = 1
"""80 ms on a core of 2023; OWASP's least is 19 MiB with two passes. One lane: the process has other work for its cores."""
AT_ONCE = 2
WAITING = 8
"""Ten log-ins in the same moment are answered within half a second."""
MIN_LENGTH = 12
MAX_LENGTH = 1_024
"""Characters. Longer than any pass phrase; without a limit somebody would have us hash megabytes."""
LEAST_DIFFERENT = 5
"""Different characters of a password: below that it is a pattern."""


def checked(password: str, name: str) -> str:
    """Return ``password`` as it is hashed. Raises UserError saying what to change. ``name`` is the operator's."""
    plain = normal(password)
    folded = plain.casefold()
    if len(plain) < MIN_LENGTH:
        raise UserError(
            f"the password has {len(plain)} characters, {MIN_LENGTH} are needed", "a sentence of your own is good"
        )
    if len(plain) > MAX_LENGTH:
        raise UserError(f"the password has more than {MAX_LENGTH} characters", "take a shorter one")
    if folded in _common() or folded.rstrip("0123456789!.?") in _common():
        raise UserError("everybody's lists hold this password", "take a sentence of your own")
    if len(set(folded)) < LEAST_DIFFERENT or _is_run(folded):
        raise UserError("the password repeats or counts", "take a sentence of your own")
    if name and folded.replace(name.casefold(), "").strip("0123456789 !.?-_") == "":
        raise UserError("the password is the name", "take a sentence of your own")
    return plain


def normal(password: str) -> str:
    """Return the one form of a text that keyboards write in several ways (NFKC)."""
    return unicodedata.normalize("NFKC", password)


class Hashing:
    """Hashes and verifies, a few at a time; safe to use from several threads. ``cheap`` is for tests of what is around it."""

    def __init__(self, *, cheap: bool = False) -> None:
        self._argon = PasswordHasher(1, 64, 1) if cheap else PasswordHasher(TIME_COST, MEMORY_KIB, PARALLELISM)
        self._work = threading.BoundedSemaphore(AT_ONCE)
        self._room = threading.BoundedSemaphore(AT_ONCE + WAITING)
        self._nobody = self._argon.hash("nobody has this password")

    def hash(self, password: str) -> str:
        """Return the hash of what ``checked`` returned. Raises TooManyTries."""
        with self._turn():
            return self._argon.hash(password)

    def verify(self, stored: str | None, password: str) -> bool:
        """Tell whether ``stored`` is the hash of ``password``; None takes the same time and is never. Raises TooManyTries."""
        with self._turn():
            try:
                same = self._argon.verify(stored or self._nobody, normal(password[: MAX_LENGTH + 1]))
            except (VerificationError, InvalidHashError):
                return False
        return same and bool(stored)

    def is_outdated(self, stored: str) -> bool:
        """Tell whether ``stored`` was made with other parameters than today's."""
        return self._argon.check_needs_rehash(stored)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._room.acquire(blocking=False):
            raise TooManyTries("too many log-ins at once", 2)
        try:
            with self._work:
                yield
        finally:
            self._room.release()


@cache
def _common() -> frozenset[str]:
    text = (files("midsource.security") / "common_passwords.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def _is_run(text: str) -> bool:
    """Tell whether the characters only count up or down: abcdefghijkl, 987654321098."""
    steps = {
        (ord(after) - ord(before)) % 10 if (before + after).isdecimal() else ord(after) - ord(before)
        for before, after in pairwise(text)
    }
    return steps in ({1}, {-1}, {9})

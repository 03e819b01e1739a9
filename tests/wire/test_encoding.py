"""Undoing compression: whole bodies, torn ones, and ones that grow too large."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest

from midsource.model.errors import RemoteRefused
from midsource.wire.encoding import BROKEN, inflate
from midsource.wire.rows import compress

PLAIN = b"".join(b'{"id":%d}\n' % n for n in range(2_000))
CASES = [("zstd", compress), ("gzip", gzip.compress)]


@pytest.mark.parametrize(("encoding", "pack"), CASES)
def test_a_whole_body_comes_back(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    assert inflate(pack(PLAIN), encoding, len(PLAIN)) == PLAIN


@pytest.mark.parametrize(("encoding", "pack"), CASES)
@pytest.mark.parametrize("kept", [1, 5, 0.5, -1])
def test_a_torn_body_is_broken_and_not_a_short_one(encoding: str, pack: Callable[[bytes], bytes], kept: float) -> None:
    """Taken for a short answer it would read as `not a mid`, and end the job for good instead of trying again."""
    body = pack(PLAIN)
    torn = body[: int(len(body) * kept)] if isinstance(kept, float) else body[:kept]
    with pytest.raises(BROKEN):
        inflate(torn, encoding, len(PLAIN))


@pytest.mark.parametrize(("encoding", "pack"), CASES)
def test_a_small_body_does_not_become_a_large_one(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(RemoteRefused, match="inflates to more than 1000 bytes"):
        inflate(pack(b"x" * 10_000_000), encoding, 1_000)


def test_another_encoding_is_named() -> None:
    with pytest.raises(RemoteRefused, match="encoded as 'br'"):
        inflate(b"x", "br", 10)

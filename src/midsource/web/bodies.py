"""Bodies of requests, bounded in bytes and seconds before and after inflating."""

from __future__ import annotations

import asyncio
import zlib
from typing import TypeVar

import msgspec
from starlette.requests import Request

from midsource.model.errors import UserError
from midsource.web.problems import TooSlow, UnknownEncoding
from midsource.wire.rows import Oversized, decompress

BODY_SECONDS = 60
"""Longest time for a body to arrive: 4 MB over 0.5 Mbit/s."""

T = TypeVar("T")


async def read(request: Request, limit_bytes: int) -> bytes:
    """Return the body as sent. Raises Oversized (before reading, where the length is told) and TooSlow."""
    too_large = Oversized(f"the body is larger than {limit_bytes} bytes", "send less at once")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > limit_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > limit_bytes:
                    raise too_large
    except TimeoutError as exc:
        raise TooSlow(f"the body did not arrive within {BODY_SECONDS} s", "send less at once") from exc
    return bytes(body)


def inflate(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Undo Content-Encoding (zstd, gzip or none) to at most ``limit_bytes``. Raises Oversized, UserError, UnknownEncoding."""
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "zstd":
            return decompress(body, limit_bytes)
        case "gzip":
            return _gunzip(body, limit_bytes)
        case _:
            raise UnknownEncoding(f"the body is encoded as {encoding[:40]!r}", "send it as zstd, gzip or plain")


def decode(raw: bytes, kind: type[T]) -> T:
    """Read JSON into ``kind``; raises UserError naming what is wrong."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UserError(f"the body is not what this call takes ({exc})", "compare the versions of both halves") from exc


def _gunzip(body: bytes, limit_bytes: int) -> bytes:
    engine = zlib.decompressobj(wbits=31)
    try:
        raw = engine.decompress(body, limit_bytes + 1)
    except zlib.error as exc:
        raise UserError(f"the body is not gzip ({exc})", "send it again") from exc
    if len(raw) > limit_bytes:
        raise Oversized(f"the body inflates to more than {limit_bytes} bytes", "send less at once")
    if not engine.eof:
        raise UserError("the gzip body ends early", "send it again")
    return raw

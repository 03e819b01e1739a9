"""Canonical rows, their hashes, and the compressed NDJSON of a part.

A row's canonical form is msgspec JSON of ``PartRow`` with the values' keys sorted; its hash is the first 8 bytes of
BLAKE2b over that line; a delivery's hash is the sum of its rows' hashes modulo 2^64, so it does not depend on order or
on how rows were cut into parts. A part's content hash is SHA-256 over its lines before compression.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import msgspec
import zstandard

from midsource.model.errors import UserError
from midsource.wire.schema import MAX_PART_RAW_BYTES, PartRow

HASH_MODULUS = 1 << 64
ZSTD_LEVEL = 1
"""Level 1: 9 times smaller on such rows, nearly free (performance.md)."""

_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(PartRow)


class Oversized(UserError):
    """The body is larger than this call takes; less at once will pass."""

    code = "MS-135"
    http_status = 413


def encode_row(row: PartRow) -> bytes:
    """Return the canonical line of ``row``, newline included."""
    return _encoder.encode(row) + b"\n"


def decode_row(line: bytes) -> PartRow:
    """Parse one line; raises UserError naming what is wrong with it."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UserError(f"not a row of a delivery part ({exc})") from exc


def row_hash(line: bytes) -> int:
    """Hash one canonical line: an integer below 2^64."""
    return int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "big")


def sum_hashes(hashes: Iterable[int]) -> int:
    """Combine row or part hashes: order-free, modulo 2^64."""
    return sum(hashes) % HASH_MODULUS


def content_hash(raw: bytes) -> str:
    """Return the hex SHA-256 of a part's uncompressed lines."""
    return hashlib.sha256(raw).hexdigest()


def compress(raw: bytes) -> bytes:
    """Compress a part or a page."""
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(raw)


def decompress(body: bytes, limit_bytes: int = MAX_PART_RAW_BYTES) -> bytes:
    """Inflate at most ``limit_bytes``; raises Oversized, or UserError for a broken body."""
    try:
        with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=False) as reader:
            raw = reader.read(limit_bytes + 1)
    except zstandard.ZstdError as exc:
        raise UserError(f"the body is not zstd ({exc})", "send the part again") from exc
    if len(raw) > limit_bytes:
        raise Oversized(f"the body inflates to more than {limit_bytes} bytes", "send smaller parts")
    return raw


def lines(raw: bytes) -> Iterator[bytes]:
    """Yield the lines of NDJSON, each with its newline; a bare CR ends none, it is white space of JSON."""
    found = raw.split(b"\n")
    if not found[-1]:
        found.pop()
    for line in found:
        yield line + b"\n"

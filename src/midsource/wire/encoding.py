"""Undo the compression of an answer within a limit of bytes, so that a small body cannot become a large one."""

from __future__ import annotations

import zlib

import zstandard

from midsource.model.errors import RemoteRefused

BROKEN = (zstandard.ZstdError, zlib.error)
"""What ``inflate`` raises for a body that is no valid compression: it was cut or altered on the way."""
_UNKNOWN_SIZE = -1
"""Of a frame whose writer did not know its size beforehand; ours do."""


def inflate(raw: bytes, encoding: str, limit: int) -> bytes:
    """Return the plain body; raises RemoteRefused above ``limit`` bytes or for another encoding, BROKEN for a torn one."""
    if encoding in ("", "identity") or not raw:
        return raw
    if encoding == "zstd":
        with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=False) as reader:
            body: bytes = reader.read(limit + 1)
        if len(body) <= limit and zstandard.frame_content_size(raw) not in (_UNKNOWN_SIZE, len(body)):
            raise zstandard.ZstdError("it ends early")  # the reader gives what there is and says nothing
    elif encoding == "gzip":
        engine = zlib.decompressobj(wbits=31)
        body = engine.decompress(raw, limit + 1)
        if not engine.eof and len(body) <= limit:
            raise zlib.error("it ends early")
    else:
        raise RemoteRefused(f"the answer is encoded as {encoding[:40]!r}", "check that it is a mid of this version")
    if len(body) > limit:
        raise RemoteRefused(f"the answer inflates to more than {limit} bytes", "check that it is a mid of this version")
    return body

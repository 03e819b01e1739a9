"""A form that may carry a file (multipart/form-data), bounded in bytes and seconds.

The file is written to a temporary one, without a name, while it arrives: a megabyte of it is in memory, whatever its size. An
ordinary form (urlencoded) is read as ever and carries none. The caller closes the file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from midsource.model.errors import Failed
from midsource.web.problems import TooSlow, UnknownEncoding
from midsource.wire.rows import Oversized

MULTIPART = "multipart/form-data"
UPLOAD_SECONDS = 600
"""Longest time for a form with a file to arrive: 50 MB over 0.7 Mbit/s."""
MAX_FIELD_BYTES = 2_000_000
"""Of one field that is no file: as much as an ordinary form may have."""
MAX_FILE_FIELDS = 20
"""Fields beside the file; our forms have five."""


async def receive(request: Request, limit_bytes: int) -> tuple[dict[str, str], UploadFile | None]:
    """Return the fields of a multipart form, and its file, None where none was chosen.

    Raises Oversized (before reading, where the length is told), TooSlow, UnknownEncoding, and Failed where the disk takes no more.
    """
    parser = MultiPartParser(
        request.headers, _bounded(request, limit_bytes),
        max_files=1, max_fields=MAX_FILE_FIELDS, max_part_size=MAX_FIELD_BYTES,
    )  # fmt: skip
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            parts = (await parser.parse()).multi_items()
    except TimeoutError as exc:
        raise TooSlow(f"the file did not arrive within {UPLOAD_SECONDS} s", "send less at once") from exc
    except MultiPartException as exc:
        raise UnknownEncoding("the form cannot be read", "send it from the page itself") from exc
    except OSError as exc:
        raise Failed(
            f"the file cannot be kept ({exc.strerror})", "free space for temporary files, then repeat"
        ) from exc
    fields = {name: value.replace("\0", "") for name, value in parts if isinstance(value, str)}
    file = next((value for _, value in parts if isinstance(value, UploadFile)), None)
    if file is not None and not file.filename:  # nothing was chosen: browsers send an empty file without a name
        await file.close()
        file = None
    return fields, file


async def _bounded(request: Request, limit_bytes: int) -> AsyncGenerator[bytes, None]:
    too_large = Oversized(f"the form is larger than {limit_bytes} bytes", "send the file in pieces, or use the command")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > limit_bytes:
        raise too_large
    arrived = 0
    async for piece in request.stream():
        arrived += len(piece)
        if arrived > limit_bytes:
            raise too_large
        yield piece

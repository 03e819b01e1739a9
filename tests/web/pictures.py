"""The pictures of the console in README and documents, taken anew from a real home by a real browser.

    python -m tests.web.pictures                 a temporary home, a demo of 10 000 people, then the pictures
    python -m tests.web.pictures --home DIR      of a home that runs already, with at least one delivery

Each picture is docs/images/<name>.png: its colours are reduced to those of a palette (a page has few), so that the repository and the
first page of it stay light. Exit 1 where one is heavier than MAX_BYTES.
"""

from __future__ import annotations

import argparse
import shutil
import struct
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from tests.web.console_window import ARGUMENTS, BROWSERS

from midsource.cli.ground import Home
from midsource.config import load
from midsource.security import access

IMAGES = Path(__file__).parents[2] / "docs" / "images"
PEOPLE = 10_000
WIDTH = 1280
MAX_HEIGHT = 1000
"""What a reader sees at once; the rest of a page is cut."""
MAX_BYTES = 150_000
PICTURES = {
    "console": "/deliveries/{delivery}",
    "console-status": "/",
}
"""Name of each picture and the page it shows."""


def main() -> int:
    """Take the pictures; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.web.pictures", description=__doc__)
    parser.add_argument("--home", type=Path, help="a home that runs; default: a temporary one")
    given: Path | None = parser.parse_args().home
    if given is not None:
        return shoot(given.absolute())
    folder = Path(tempfile.mkdtemp(prefix="midsource-pictures-", dir="/tmp"))
    folder.chmod(0o711)
    home = Home(folder / "home")
    try:
        home.init()
        home.up()
        home.run("demo", "--recipients", str(PEOPLE), seconds=600)
        return shoot(home.path)
    finally:
        home.end()
        shutil.rmtree(folder, ignore_errors=True)


def shoot(home: Path) -> int:
    """Take every picture of a running home."""
    executable = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if executable is None:
        sys.stderr.write(f"there is no browser: install one of {', '.join(BROWSERS)}\n")
        return 1
    address = f"http://127.0.0.1:{load(home).instance('marketing').port}"
    too_heavy = False
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": WIDTH, "height": MAX_HEIGHT}, color_scheme="light", locale="en")
        page.goto(f"{address}/?token={access.token(home)}&lang=en")
        for name, path in PICTURES.items():
            data = reduced(picture(page, address + path.format(delivery=latest(page, address))))
            (IMAGES / f"{name}.png").write_bytes(data)
            sys.stdout.write(f"docs/images/{name}.png: {len(data)} bytes\n")
            too_heavy = too_heavy or len(data) > MAX_BYTES
        browser.close()
    return int(too_heavy)


def latest(page: Page, address: str) -> str:
    """Return the number of the newest delivery of the list."""
    page.goto(f"{address}/deliveries")
    link = page.locator("main a[href^='/deliveries/8']").first.get_attribute("href")
    assert link, "the home has no delivery: run `midsource demo` there"
    return link.split("/")[2].partition("?")[0]


def picture(page: Page, address: str) -> bytes:
    """Return a page as PNG, down to its end or MAX_HEIGHT."""
    answer = page.goto(address)
    assert answer is not None
    assert answer.status == 200, f"{address}: {answer.status}"
    page.wait_for_load_state("networkidle")
    height = min(MAX_HEIGHT, page.evaluate("document.documentElement.scrollHeight"))
    return page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": height}, animations="disabled")


def reduced(png: bytes) -> bytes:
    """Return the picture with a palette of its 256 most frequent colours, every other one by its nearest."""
    width, height, channels, rows = _pixels(png)
    colours = Counter(bytes(row[at : at + 3]) for row in rows for at in range(0, len(row), channels))
    palette = [colour for colour, _ in colours.most_common(256)]
    index = {colour: number for number, colour in enumerate(palette)}
    for colour in colours:
        if colour not in index:
            index[colour] = min(range(len(palette)), key=lambda number: _apart(palette[number], colour))
    body = b"".join(
        b"\0" + bytes(index[bytes(row[at : at + 3])] for at in range(0, len(row), channels)) for row in rows
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(body, 9)), (b"IEND", b""))
    return png[:8] + b"".join(_chunk(kind, data) for kind, data in chunks)


def _apart(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _pixels(png: bytes) -> tuple[int, int, int, list[bytearray]]:
    """Return width, height, bytes of a pixel and the unfiltered rows of an 8-bit RGB or RGBA picture that is not interlaced."""
    at, packed = 8, b""
    width = height = channels = 0
    while at < len(png):
        (size,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        data = png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data)
            assert (depth, interlaced) == (8, 0)
            channels = {2: 3, 6: 4}[colour]
        packed += data if kind == b"IDAT" else b""
        at += size + 12
    raw, stride = zlib.decompress(packed), width * channels
    rows: list[bytearray] = []
    above = bytearray(stride)
    for start in range(0, len(raw), stride + 1):
        above = _unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + stride]), above, channels)
        rows.append(above)
    return width, height, channels, rows


def _unfiltered(kind: int, row: bytearray, above: bytearray, channels: int) -> bytearray:
    """Undo the filter of one row (PNG 9.2)."""
    if kind == 0:
        return row
    for at in range(len(row)):
        left = row[at - channels] if at >= channels else 0
        corner = above[at - channels] if at >= channels else 0
        guess = (0, left, above[at], (left + above[at]) // 2, _paeth(left, above[at], corner))[kind]
        row[at] = (row[at] + guess) & 0xFF
    return row


def _paeth(left: int, up: int, corner: int) -> int:
    estimate = left + up - corner
    return min((abs(estimate - left), 0, left), (abs(estimate - up), 1, up), (abs(estimate - corner), 2, corner))[2]


if __name__ == "__main__":
    sys.exit(main())

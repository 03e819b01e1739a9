"""Canonical rows: one form, order-free hashes, bounded inflation."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from midsource.model.errors import UserError
from midsource.wire.rows import compress, content_hash, decode_row, decompress, encode_row, lines, row_hash, sum_hashes
from midsource.wire.schema import PartName, PartRow, Verb

values = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.none() | st.text() | st.integers(-(2**53), 2**53) | st.booleans()
)


@given(st.integers(1, 2**62), st.text(), values)
def test_a_row_survives_the_link_and_has_one_form(number: int, to: str, data: dict[str, object]) -> None:
    row = PartRow(id=number, to=to, d=data)
    shuffled = list(data.items())
    random.Random(1).shuffle(shuffled)
    line = encode_row(row)
    assert encode_row(PartRow(id=number, to=to, d=dict(shuffled))) == line
    assert line.count(b"\n") == 1
    assert decode_row(line) == row


def test_the_sum_does_not_depend_on_order_or_on_how_rows_are_cut_into_parts() -> None:
    hashes = [row_hash(encode_row(PartRow(id=n, to=f"p{n}@a.example", d={"n": n}))) for n in range(1, 500)]
    whole = sum_hashes(hashes)
    random.Random(2).shuffle(hashes)
    assert sum_hashes(hashes) == whole
    assert sum_hashes([sum_hashes(hashes[:100]), sum_hashes(hashes[100:])]) == whole
    assert sum_hashes(hashes[1:]) != whole


def test_a_body_is_inflated_to_its_limit_and_no_further() -> None:
    raw = b"".join(encode_row(PartRow(id=n, to="a@b.example", d={})) for n in range(1, 100))
    assert decompress(compress(raw)) == raw
    assert next(iter(lines(raw))) == raw.split(b"\n")[0] + b"\n"
    assert content_hash(raw) == content_hash(b"".join(lines(raw)))
    bomb = zstandard.ZstdCompressor().compress(b"0" * 50_000_000)
    with pytest.raises(UserError, match="inflates to more than"):
        decompress(bomb, 1_000_000)
    with pytest.raises(UserError, match="not zstd"):
        decompress(b"not zstd at all")


@pytest.mark.parametrize("line", [b"", b"{}", b'{"id":0,"to":"a","d":{}}', b'{"id":1,"to":2,"d":{}}', b"\xff\xfe"])
def test_a_line_that_is_no_row_is_refused(line: bytes) -> None:
    with pytest.raises(UserError, match="not a row"):
        decode_row(line)


def test_lines_end_at_line_feeds_alone() -> None:
    assert list(lines(b'{"a":\r1}\nb\r\n\nc')) == [b'{"a":\r1}\n', b"b\r\n", b"\n", b"c\n"]
    assert list(lines(b"")) == []
    assert list(lines(b"a\n")) == [b"a\n"]


@pytest.mark.parametrize(("kind", "text"), [(PartName, "1.2"), (Verb, "stop")])
def test_a_newline_is_part_of_no_name(kind: Any, text: str) -> None:
    assert msgspec.convert(text, kind) == text
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text + "\n", kind)

"""Reading CSV: every line is a record or a reject, and a bad one costs itself only."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midsource.marketing.csvfile import MAX_RECORD_LINES, CsvFile, Record, Reject
from midsource.model.errors import UserError


def read(tmp_path: Path, content: bytes) -> tuple[CsvFile, list[Record], list[Reject]]:
    path = tmp_path / "people.csv"
    path.write_bytes(content)
    with path.open("rb") as source:
        file = CsvFile(path, source)
        items = list(file.records())
    return file, [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Reject)]


@pytest.mark.parametrize(
    ("delimiter", "content"), [(",", b"a,b\n1,2\n"), (";", b"a;b\n1;2\n"), ("\t", b"a\tb\n1\t2\n")]
)
def test_delimiter_is_found_in_the_header(tmp_path: Path, delimiter: str, content: bytes) -> None:
    file, records, _ = read(tmp_path, content)
    assert (file.delimiter, file.header, records) == (delimiter, ["a", "b"], [Record(2, ["1", "2"])])


def test_delimiter_inside_quotes_does_not_count(tmp_path: Path) -> None:
    file, records, _ = read(tmp_path, b'"a,b,c";d\n1;2\n')
    assert (file.header, records) == (["a,b,c", "d"], [Record(2, ["1", "2"])])


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("n,m\nZoé,1\n".encode(), "utf-8"),
        ("n,m\nZoé,1\n".encode("utf-8-sig"), "utf-8 with byte-order mark"),
        ("n,m\nZoé,1\n".encode("latin-1"), "cp1252"),
        (b"n,m\n" + b"plain,1\n" * 10 + "Zoé,1\n".encode("cp1252"), "cp1252"),
    ],
)
def test_encoding_is_assumed_and_said(tmp_path: Path, content: bytes, encoding: str) -> None:
    file, records, rejects = read(tmp_path, content)
    assert (file.encoding, records[-1].cells, rejects) == (encoding, ["Zoé", "1"], [])
    assert file.header == ["n", "m"]


def test_one_bad_byte_in_a_utf8_file_rejects_its_line_only(tmp_path: Path) -> None:
    file, records, rejects = read(tmp_path, "n,m\nZoé,1\n".encode() + b"Zo\xe9,2\n" + "Ïvar,3\n".encode())
    assert file.encoding == "utf-8"
    assert [record.cells[0] for record in records] == ["Zoé", "Ïvar"]
    assert [(reject.line, reject.why[:6]) for reject in rejects] == [(3, "byte 3")]


def test_utf16_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is UTF-16: save it as UTF-8"):
        read(tmp_path, "a,b\n1,2\n".encode("utf-16"))


def test_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no header line: it is empty"):
        read(tmp_path, b"")


def test_wrong_number_of_columns_is_rejected_with_both_numbers(tmp_path: Path) -> None:
    _, records, rejects = read(tmp_path, b"a,b\n1\n1,2\n1,2,3\n\n  \n")
    assert records == [Record(3, ["1", "2"])]
    assert [(r.line, r.why) for r in rejects] == [(2, "1 column, the header has 2"), (4, "3 columns, the header has 2")]


def test_nul_is_rejected(tmp_path: Path) -> None:
    _, records, rejects = read(tmp_path, b"a,b\n1,\x002\n3,4\n")
    assert [record.cells for record in records] == [["3", "4"]]
    assert (rejects[0].line, rejects[0].why) == (2, "the line holds a NUL character")


def test_unclosed_quote_costs_its_own_line(tmp_path: Path) -> None:
    good = b"".join(b"%d,x\n" % n for n in range(200))
    _, records, rejects = read(tmp_path, b'a,b\n1,"never closed\n' + good)
    assert len(records) == 200
    assert [(r.line, r.why) for r in rejects] == [(2, "a quote is opened and never closed")]


def test_unclosed_quote_that_meets_the_next_lines_quote_costs_its_own_line(tmp_path: Path) -> None:
    _, records, rejects = read(tmp_path, b'a,b\n1,"never closed\n2,"Paris, 11e"\n3,x\n')
    assert [record.cells for record in records] == [["2", "Paris, 11e"], ["3", "x"]]
    assert [reject.line for reject in rejects] == [2]


def test_unclosed_quote_before_a_nul_line_keeps_both_numbers(tmp_path: Path) -> None:
    _, records, rejects = read(tmp_path, b'a,b\n1,"open\n2,\x00\n3,x\n')
    assert [reject.line for reject in rejects] == [2, 3]
    assert [record.line for record in records] == [4]


def test_record_over_several_lines_is_one_record(tmp_path: Path) -> None:
    _, records, rejects = read(tmp_path, b'a,b\n1,"line one\r\nline ""two"""\n2,x\n')
    assert records == [Record(2, ["1", 'line one\r\nline "two"']), Record(4, ["2", "x"])]
    assert rejects == []


def test_overlong_line_is_rejected_and_skipped(tmp_path: Path) -> None:
    _, records, rejects = read(tmp_path, b"a,b\n1," + b"x" * 700_000 + b"\n2,y\n")
    assert [record.cells for record in records] == [["2", "y"]]
    assert (rejects[0].line, len(rejects[0].raw)) == (2, 500)


def test_record_of_too_many_lines_is_given_up(tmp_path: Path) -> None:
    long = b'1,"' + b"y\n" * (MAX_RECORD_LINES + 5) + b'"\n'
    _, records, rejects = read(tmp_path, b"a,b\n" + long + b"2,z\n")
    assert records[-1].cells == ["2", "z"]
    assert rejects[0].line == 2


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=8), delimiter=st.sampled_from(",;\t"))
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], delimiter: str
) -> None:
    # A record of blanks only is passed over, as a blank line is; bare CR is no line end to us.
    rows = [[cell.replace("\r", "") for cell in row] for row in rows]
    rows = [row for row in rows if not delimiter.join(row).isspace() and any(row)]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([["a", "b", "c"], *rows])
    _, records, rejects = read(tmp_path_factory.mktemp("csv"), out.getvalue().encode("utf-8-sig"))
    assert [record.cells for record in records] == rows
    assert rejects == []

import quopri
import re

from hypothesis import example, given
from hypothesis import strategies as st

from midsource.mail.dkim import canonical_body
from midsource.mail.quoted import encode_piece

# Weighted to what breaks lines and encodings: blanks, dots, equals, breaks, accents, long runs.
TRICKY = st.lists(
    st.one_of(
        st.sampled_from([" ", "  ", ".", "=", "\n", "\r", "\r\n", "\t", "From ", "é", "…", "🎉", "\x00", "\x0c", "\u2028", "-"]),
        st.text(max_size=5),
        st.text(alphabet="ab. é", min_size=60, max_size=90),
    ),
    max_size=12,
).map("".join)  # fmt: skip


def with_crlf(text: str) -> bytes:
    return re.sub("\r\n|\r|\n", "\r\n", text).encode("utf-8", "replace")


@given(st.lists(TRICKY, max_size=6))
@example(["a \n", "\n.b"])
@example(["x" * 75 + " ", "\n"])
@example(["é" * 40, ".", "\n" * 3])
def test_joined_pieces_decode_to_the_joined_texts(texts: list[str]) -> None:
    wire = "".join(map(encode_piece, texts)).encode("ascii")
    assert quopri.decodestring(wire) == b"".join(map(with_crlf, texts))


@given(st.lists(TRICKY, max_size=6))
@example(["." * 400])
@example(["From here", "From " * 40])
@example([" " * 300 + "\n"])
def test_every_line_is_safe_on_the_wire(texts: list[str]) -> None:
    wire = "".join(map(encode_piece, texts)).encode("ascii")
    assert wire == b"" or wire.endswith(b"\r\n")
    assert b"\r" not in wire.replace(b"\r\n", b"")
    assert b"\n" not in wire.replace(b"\r\n", b"")
    for line in wire.split(b"\r\n"):
        assert len(line) <= 76
        assert not line.startswith((b".", b"From "))
        assert not line.endswith((b" ", b"\t"))
        assert b"=_" not in line  # no line can be the boundary


@given(st.lists(TRICKY, max_size=6))
def test_pieces_are_in_relaxed_form(texts: list[str]) -> None:
    wire = "".join(map(encode_piece, texts)).encode("ascii") + b"end\r\n"
    assert canonical_body(wire) == wire


def test_a_lone_surrogate_is_shown_as_a_question_mark() -> None:
    assert encode_piece("a\ud800b") == "a=3Fb=\r\n"

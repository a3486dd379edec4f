"""CSV and TSV: written rows read back, and a malformed row affects no other."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pennyweight.data.read import Record, open_file
from pennyweight.errors import DataError, PennyweightError

# A NUL byte makes a row bad on purpose, and surrogates are not UTF-8.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


def read_bytes(content: bytes, *, name: str) -> list[Record]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{name}"
        path.write_bytes(content)
        return list(open_file(path, format=name).records(None))


def fields(record: Record) -> list[object]:
    assert record.values is not None, record.problem
    return list(record.values.values())


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=8),
    separator=st.sampled_from([("csv", ","), ("tsv", "\t")]),
    ending=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from((0, 1)),
)
def test_what_the_stdlib_writes_reads_back(
    rows: list[tuple[str, ...]], separator: tuple[str, str], ending: str, quoting: Literal[0, 1]
) -> None:
    # With QUOTE_MINIMAL the writer leaves a lone carriage return bare, which cannot be read back.
    assume(
        quoting == csv.QUOTE_ALL
        or ending == "\r\n"
        or not any("\r" in field for row in rows for field in row)
    )
    name, delimiter = separator
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=ending, quoting=quoting)
    writer.writerows([("a", "b", "c"), *rows])

    read = read_bytes(file.getvalue().encode(), name=name)

    assert [fields(record) for record in read] == [list(row) for row in rows]
    assert [record.number for record in read] == list(range(1, len(rows) + 1))


PIECES = st.sampled_from(
    ["1", "a b", '"', '""', ",", "\n", "\r\n", "\r", "é", "x" * 40, '"q"', "\0", "\udcff"]
)


@settings(max_examples=200)
@given(pieces=st.lists(PIECES, max_size=40))
def test_every_line_of_a_broken_file_is_in_exactly_one_record(pieces: list[str]) -> None:
    body = "".join(pieces).encode(errors="surrogateescape")

    # With a line that is UTF-8, so that the others are bad rows and not another encoding.
    read = read_bytes("a,é\n".encode() + body, name="csv")

    whole = "".join(record.raw for record in read)
    assert lines_with_content(whole) == lines_with_content(escaped(body))


def lines_with_content(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip("\r")]


def escaped(content: bytes) -> str:
    """The escape that rows with invalid UTF-8 have, none of these holding a backslash."""
    return content.decode(errors="backslashreplace")


@settings(max_examples=150)
@given(content=st.binary(max_size=300), name=st.sampled_from(["csv", "tsv"]))
def test_random_bytes_give_rows_or_a_pennyweight_error(content: bytes, name: str) -> None:
    problem = ""
    try:
        read_bytes(content, name=name)
    except PennyweightError as error:
        problem = str(error)
    assert "\n" not in problem


def test_a_quoted_field_may_hold_line_breaks() -> None:
    read = read_bytes(b'id,text\n1,"one\ntwo\r\nthree"\n2,four\n', name="csv")

    assert [fields(record) for record in read] == [["1", "one\ntwo\r\nthree"], ["2", "four"]]
    assert [(record.number, record.line) for record in read] == [(1, 2), (2, 5)]


def test_an_unclosed_quote_costs_one_row_however_long_the_file_is() -> None:
    rows = [f"{i},row {i}" for i in range(5000)]
    rows[10] = '10,"row 10'

    read = read_bytes(("id,text\n" + "\n".join(rows)).encode(), name="csv")

    bad = [record for record in read if record.problem]
    assert len(read) == 5000
    assert [(record.number, record.line, record.raw) for record in bad] == [
        (11, 12, '10,"row 10\n')
    ]
    assert bad[0].problem == "broken quoting: a quote is opened but not closed"


def test_text_after_a_closing_quote_costs_one_row() -> None:
    read = read_bytes(b'id,text\n1,"a"b\n2,"c"\n', name="csv")

    assert [record.problem is None for record in read] == [False, True]
    assert read[0].problem is not None
    assert read[0].problem.startswith("broken quoting")


def test_a_row_with_another_number_of_columns_is_bad() -> None:
    read = read_bytes(b"id,text\n1\n2,b\n3,c,d\n", name="csv")

    assert [record.problem for record in read] == [
        "1 columns instead of 2",
        None,
        "3 columns instead of 2",
    ]


def test_bytes_that_are_not_utf8_make_one_bad_row_and_are_kept() -> None:
    read = read_bytes(b"id,text\n1,caf\xe9 \\ x\n2,caf\xc3\xa9\n", name="csv")

    assert read[0].problem is not None
    assert read[0].problem.startswith("invalid UTF-8")
    assert read[0].raw == "1,caf\\xe9 \\\\ x\n"
    assert fields(read[1]) == ["2", "café"]


def test_a_nul_byte_makes_one_bad_row() -> None:
    read = read_bytes(b"id,text\n1,a\0b\n2,c\n", name="csv")

    assert [record.problem for record in read] == ["NUL byte", None]
    assert read[0].raw == "1,a\0b\n"


def test_a_field_may_be_as_long_as_a_line() -> None:
    read = read_bytes(b"id,text\n1," + b"x" * 200_000 + b"\n2,b\n", name="csv")

    assert [record.problem for record in read] == [None, None]
    assert read[0].values == {"id": "1", "text": "x" * 200_000}


def test_a_line_longer_than_memory_should_hold_comes_in_bad_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pennyweight.data.read.lines.MAX_BYTES", 64)
    long = b"1," + b"x" * 150

    read = read_bytes(b"id,text\n" + long + b"\n2,b\n", name="csv")

    assert "".join(record.raw for record in read[:-1]) == long.decode() + "\n"
    assert {record.line for record in read[:-1]} == {2}
    assert all("longer than" in str(record.problem) for record in read[:-1])
    assert fields(read[-1]) == ["2", "b"]
    assert read[-1].line == 3


def test_a_byte_order_mark_and_empty_lines_are_not_part_of_the_rows() -> None:
    read = read_bytes(b"\xef\xbb\xbfid,text\n1,a\n\n2,b\n\n\r\n", name="csv")

    assert [fields(record) for record in read] == [["1", "a"], ["2", "b"]]
    assert list(read[0].values or ()) == ["id", "text"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"\n\n", "the file is empty"),
        ("id,text\n1,a\n".encode("utf-16"), "encoded as UTF-16; save it as UTF-8"),
        ("id,text\n1,a\n".encode("utf-32"), "encoded as UTF-32; save it as UTF-8"),
        (
            "Nr;Text\n1;sch\xf6n\n2;gut\n3;\xe4rgerlich\n4;\xfcbel\n".encode("cp1252"),
            'not encoded as UTF-8; save it so, in Excel as the type "CSV UTF-8"',
        ),
        (b'"id,text\n1,a\n', "the header (line 1) cannot be read"),
        (b"id,t\xe9xt\n1,a\n", "the header (line 1) cannot be read: invalid UTF-8"),
        (b"text,text\n1,a\n", 'the header has more than one column "text"'),
    ],
)
def test_a_file_that_is_not_csv_is_refused_as_a_whole(content: bytes, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        read_bytes(content, name="csv")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_with_only_a_header_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,text\n", encoding="utf-8")

    opened = open_file(path)

    assert opened.columns == ("id", "text")
    assert list(opened.records(None)) == []


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("name", ["csv", "tsv"])
def test_another_delimiter_is_detected_by_the_header_and_the_first_rows(
    delimiter: str, name: str
) -> None:
    content = f'text{delimiter}label\n"Hello, world{delimiter} again"{delimiter}1\nb{delimiter}2\n'
    if name == "tsv" and delimiter == ";":
        with pytest.raises(DataError, match=r'no tab, but .* by semicolons; name the format "csv"'):
            read_bytes(content.encode(), name=name)
        return

    read = read_bytes(content.encode(), name=name)

    assert [fields(record) for record in read] == [
        [f"Hello, world{delimiter} again", "1"],
        ["b", "2"],
    ]


@pytest.mark.parametrize(
    "content", ["text\na;b\nc;d\n", "a;b,label\nc,d\n", "say; what\na\nb\nc\n", "text;\na;\n"]
)
def test_a_comma_stays_the_delimiter_where_no_other_fits(content: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_text(content, encoding="utf-8")

        header = content.partition("\n")[0]
        assert open_file(path).columns == tuple(header.split(","))

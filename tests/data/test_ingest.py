"""Reading rows: columns, labels, texts and bad rows."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pennyweight.data.fingerprint import fingerprint_of
from pennyweight.data.ingest import ReadOptions, Rows, read_rows
from pennyweight.data.source import Source
from pennyweight.errors import PennyweightError

LABELS = ("World", "Sports", "Business", "Sci/Tech")
Read = Callable[..., Rows]
Message = Callable[[Callable[[], object]], str]


def test_rows_become_a_memory_mapped_table_of_three_columns(read: Read, cache: Path) -> None:
    rows = read("label,text\n1,a b\n\nWorld,c\n")

    assert rows.table.to_list() == [
        {"text": "a b", "label": 1, "row": 1},
        {"text": "c", "label": 0, "row": 2},
    ]
    assert rows.table.features == datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.Value("int64"),
            "row": datasets.Value("int64"),
        }
    )
    (mapped,) = rows.table.cache_files
    assert Path(mapped["filename"]).is_relative_to(cache)
    assert (rows.format, rows.read, rows.bad, rows.bad_rows_file) == ("csv", 2, 0, None)


@pytest.mark.parametrize(
    ("given_label", "index"),
    [("0", 0), ("3", 3), ("World", 0), ("sci/tech", 3), ("SPORTS", 1), (" Business ", 2)],
)
def test_a_label_is_an_index_or_a_name_in_any_case(
    read: Read, given_label: str, index: int
) -> None:
    assert read(f"label,text\n{given_label},a\n").table["label"][:] == [index]


def test_an_exact_name_goes_before_a_digit_and_another_case(read: Read) -> None:
    rows = read("label,text\n1,a\na,b\nA,c\n", labels=("A", "a", "1"))

    assert rows.table["label"][:] == [2, 1, 0]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"label": "Sport", "text": "a"}, 'label "Sport" is not one of World, Sports, Business'),
        ({"label": 4, "text": "a"}, "numbers from 0 to 3 are read as their indices"),
        ({"label": -1, "text": "a"}, "label -1 is not one of"),
        ({"label": True, "text": "a"}, "label true is not one of"),
        ({"label": 1.0, "text": "a"}, "label 1.0 is not one of"),
        ({"label": None, "text": "a"}, "no label"),
        ({"text": "a"}, "no label"),
        ({"label": "x" * 99, "text": "a"}, "xxx... is not one of"),
        ({"label": "a\nb", "text": "a"}, 'label "a\\nb" is not one of'),
        ({"label": 1, "text": " \t"}, "empty text"),
        ({"label": 1, "text": None}, 'column "text" is null'),
        ({"label": 1, "text": 5}, 'column "text" is not text but int'),
        ({"label": 1}, 'no column "text"'),
        ({"label": 1, "text": "\ud83d"}, "the text contains half a character"),
    ],
)
def test_a_row_that_cannot_be_used_stops_with_one_line(
    read: Read, row: dict[str, object], problem: str, message: Message
) -> None:
    content = '{"label": 1, "text": "fine"}\n\n' + json.dumps(row)

    text = message(lambda: read(content, "rows.jsonl"))

    assert "rows.jsonl: row 2 (line 3): " in text
    assert problem in text
    assert text.endswith("; fix the row, or set bad rows aside with --skip-bad-rows")


def test_the_error_at_a_bad_row_counts_those_that_follow(read: Read, message: Message) -> None:
    content = "label,text\n0,a\n9,b\n1,c\n8,d\n1,\n1,e\n"

    text = message(lambda: read(content))

    assert 'row 2 (line 3): label "9"' in text
    assert "; 2 of the next 4 rows cannot be used either; fix the rows, or set bad rows" in text


def test_the_error_at_a_bad_row_stands_where_the_rest_of_the_file_is_damaged(
    read: Read, message: Message
) -> None:
    text = message(lambda: read('{"label": 9, "text": "a"}\n' * 2 + "[", "rows.jsonl"))

    assert "row 1 (line 1): label" in text
    assert "of the next" in text


def test_bad_rows_are_set_aside_whole_and_counted(read: Read, tmp_path: Path) -> None:
    bad_rows = tmp_path / "out"
    content = b'label,text\n0,a\n9,b\n1,"c\n2,caf\xe9\n3,\n1,d\n'

    rows = read(content, on_bad_row="set-aside", bad_rows=bad_rows)

    assert rows.table["text"][:] == ["a", "d"]
    assert rows.table["row"][:] == [1, 6]
    assert (rows.read, rows.bad, rows.bad_rows_file) == (6, 4, bad_rows / "rows.jsonl")
    lines = (bad_rows / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    written = [json.loads(line) for line in lines]
    assert [(row["row"], row["line"], row["raw"]) for row in written] == [
        (2, 3, "9,b\n"),
        (3, 4, '1,"c\n'),
        (4, 5, "2,caf\\xe9\n"),
        (5, 6, "3,\n"),
    ]
    assert [list(row) for row in written] == [["file", "row", "line", "problem", "raw"]] * 4


def test_a_half_character_is_set_aside_too(read: Read) -> None:
    content = '{"label": 1, "text": "\\ud83d"}\n{"label": 1, "text": "a"}\n'

    rows = read(content, "rows.jsonl", on_bad_row="set-aside")

    assert rows.bad_rows_file is not None
    assert "half a character" in rows.bad_rows_file.read_text(encoding="utf-8")


def test_rows_that_are_all_bad_are_an_error_and_still_kept(
    read: Read, tmp_path: Path, message: Message
) -> None:
    bad_rows = tmp_path / "bad"

    text = message(
        lambda: read("label,text\n7,a\n8,b\n", on_bad_row="set-aside", bad_rows=bad_rows)
    )

    assert "none of its 2 rows can be used; the first problem:" in text
    assert len((bad_rows / "rows.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_a_file_without_rows_is_an_error(read: Read, message: Message) -> None:
    assert message(lambda: read("label,text\n")).endswith("rows.csv: the source has no rows")


def test_unlabelled_rows_have_the_label_minus_one(read: Read) -> None:
    assert read("id,text\n1,a\n", labelled=False).table["label"][:] == [-1]
    # A label that is there all the same is not read, right or wrong.
    rows = read("label,text\n,a\nx,b\n2,c\n", "other.csv", labelled=False)
    assert rows.table["label"][:] == [-1, -1, -1]


def test_usual_columns_are_found_and_joined_by_a_space(read: Read) -> None:
    rows = read("label,title,description\n1,A title,and text\n1,,no title\n")
    assert rows.table["text"][:] == ["A title and text", "no title"]
    assert read("class,sentence\n1,a\n", "b.csv").table["text"][:] == ["a"]
    assert read("category,content\n1,a\n", "c.csv").table["text"][:] == ["a"]


def test_named_columns_go_before_usual_ones(read: Read) -> None:
    rows = read(
        "text,label,body,head,topic\nx,0,b,h,2\n",
        text_columns=("head", "body"),
        label_column="topic",
    )
    assert rows.table.to_list() == [{"text": "h b", "label": 2, "row": 1}]


def test_missing_columns_are_named_with_what_to_do(read: Read, message: Message) -> None:
    text = message(lambda: read("label,body\n1,a\n"))
    assert 'no text column: the file has "label", "body"; expected "text" or "title"' in text
    assert "name the column with --text-column, or in a recipe" in text
    assert text.endswith('text_columns = ["COLUMN"] }')

    text = message(lambda: read("topic,text\n1,a\n"))
    assert 'no label column: the file has "topic", "text"; expected "label" or' in text
    assert "name the column with --label-column, or in a recipe" in text
    assert """--set 'data.train.label_columns=["A", "B"]'""" in text

    text = message(lambda: read("label,text\n1,a\n", text_columns=("head",)))
    assert 'expected "head";' in text


def test_cleaning_is_applied_and_may_empty_a_row(read: Read, message: Message) -> None:
    rows = read("label,text\n1,a<b>b\n", clean=("html-tags", "whitespace"))
    assert rows.table["text"][:] == ["a b"]
    text = message(lambda: read("label,text\n1,<b>\n", clean=("html-tags",)))
    assert "row 1 (line 2): empty text after cleaning" in text


ROWS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.text(
            st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), min_size=1
        ).map(lambda text: f"a{text}"),
    ),
    min_size=1,
    max_size=6,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS)
def test_the_fingerprint_is_of_the_rows_and_not_of_their_format(
    rows: list[tuple[int, str]], tmp_path: Path
) -> None:
    table = pa.table({"text": [text for _, text in rows], "label": [label for label, _ in rows]})
    pq.write_table(table, tmp_path / "rows.parquet")
    objects = [json.dumps({"label": LABELS[label], "text": text}) for label, text in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(objects), encoding="utf-8")

    expected = hashlib.sha256(
        b"".join(
            struct.pack("<qq", label, len(text.encode())) + text.encode() for label, text in rows
        )
    ).hexdigest()

    for name in ("rows.parquet", "rows.jsonl"):
        options = ReadOptions(LABELS, (), "stop", tmp_path / "cache")
        read = read_rows("rows", Source(str(tmp_path / name)), options)
        assert read.fingerprint == expected
        assert fingerprint_of(read.table) == expected


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.binary(max_size=120),
    ending=st.sampled_from([".csv", ".tsv", ".jsonl", ".txt", ".parquet", ".pkl", ""]),
)
def test_random_bytes_give_rows_or_a_pennyweight_error(
    content: bytes, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"rows{ending}"
    path.write_bytes(content)
    problem = ""
    try:
        options = ReadOptions(LABELS, (), "set-aside", tmp_path / "cache")
        rows = read_rows("rows", Source(str(path)), options, labelled=False)
    except PennyweightError as error:
        problem = str(error)
    else:
        assert rows.read == len(rows.table) + rows.bad
    assert "\n" not in problem

"""JSON Lines and plain lines."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pennyweight.data.read import Record, open_file
from pennyweight.errors import DataError, PennyweightError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUES = st.one_of(TEXTS, st.integers(), st.none(), st.booleans(), st.lists(TEXTS, max_size=3))
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)


def read_bytes(content: bytes, *, name: str) -> list[Record]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        path.write_bytes(content)
        return list(open_file(path, format=name).records(None))


@settings(max_examples=60)
@given(objects=st.lists(OBJECTS, min_size=1, max_size=8), ascii_only=st.booleans())
def test_any_objects_written_one_per_line_read_back(
    objects: list[dict[str, object]], ascii_only: bool
) -> None:
    content = "".join(json.dumps(each, ensure_ascii=ascii_only) + "\n" for each in objects)

    read = read_bytes(content.encode(), name="jsonl")

    assert [record.values for record in read] == objects
    assert "".join(record.raw for record in read) == content


@settings(max_examples=100)
@given(content=st.binary(max_size=300), name=st.sampled_from(["jsonl", "lines"]))
def test_random_bytes_give_rows_or_a_pennyweight_error(content: bytes, name: str) -> None:
    problem = ""
    try:
        read_bytes(content, name=name)
    except PennyweightError as error:
        problem = str(error)
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"text": "a"', "invalid JSON: Expecting ',' delimiter at character"),
        (b'["text"]', "not a JSON object"),
        (b'{"text": "caf\xe9"}', "invalid UTF-8"),
        (b'{"n": ' + b"9" * 5000 + b"}", "invalid JSON: Exceeds the limit"),
        (b"[" * 100_000, "invalid JSON"),
        (b'{"text": "a\0"}', "NUL byte"),
    ],
)
def test_an_invalid_line_is_a_bad_row_and_the_next_one_is_read(line: bytes, problem: str) -> None:
    read = read_bytes(b'{"text": "first"}\n\n' + line + b'\n{"text": "last"}', name="jsonl")

    assert [record.number for record in read] == [1, 2, 3]
    assert [record.line for record in read] == [1, 3, 4]
    assert [record.problem is None for record in read] == [True, False, True]
    assert str(read[1].problem).startswith(problem)


def test_columns_are_the_union_over_the_first_objects(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b", "label": 1}\n', encoding="utf-8")

    assert open_file(path).columns == ("text", "label")


def test_plain_lines_are_texts_and_empty_lines_at_the_end_are_ignored() -> None:
    read = read_bytes("\ufeffone\r\n\n two \n\n\r\n".encode(), name="lines")

    assert [record.values for record in read] == [{"text": "one"}, {"text": ""}, {"text": " two "}]
    assert [record.line for record in read] == [1, 2, 3]


@pytest.mark.parametrize("name", ["jsonl", "lines"])
def test_a_file_that_is_not_utf8_at_all_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="UTF-16"):
        read_bytes("text\n".encode("utf-16"), name=name)
    with pytest.raises(DataError, match="empty"):
        read_bytes(b"", name=name)


def test_a_column_that_begins_after_a_hundred_short_objects_is_seen(tmp_path: Path) -> None:
    rows = [{"text": "short"}] * 150 + [{"text": "short", "label": "a"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert open_file(path).columns == ("text", "label")
    path.write_text("".join(json.dumps(row | {"text": "long " * 100}) + "\n" for row in rows))
    assert open_file(path).columns == ("text",)

"""The original AG News CSV: classes from 1, and its one documented escape."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pennyweight.data.read import Record, detect, open_file

# A backslash begins an escape, so the property excludes it.
TEXTS = st.text(st.characters(exclude_characters="\0\\", exclude_categories=["Cs"]), max_size=30)


def ag_news_line(label: int, title: str, description: str) -> str:
    fields = (str(label), title, description)
    quoted = (field.replace('"', '""').replace("\n", "\\n") for field in fields)
    return ",".join(f'"{field}"' for field in quoted) + "\n"


def read_text(content: str) -> list[Record]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_text(content, encoding="utf-8", newline="")
        return list(open_file(path, format="ag_news_csv").records(None))


@settings(max_examples=80)
@given(rows=st.lists(st.tuples(st.integers(1, 4), TEXTS, TEXTS), min_size=1, max_size=8))
def test_what_is_written_in_its_format_reads_back(rows: list[tuple[int, str, str]]) -> None:
    content = "".join(ag_news_line(*row) for row in rows)
    # A line break before a lower-case letter is ambiguous: it may be a backslash before "n...".
    assume(not any(f"\\n{letter}" in content for letter in "abcdefghijklmnopqrstuvwxyz"))

    read = read_text(content)

    assert [tuple((record.values or {}).values()) for record in read] == rows


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (r"said.\nThen", "said.\nThen"),
        (r"said.\n", "said.\n"),
        (r"said.\n\nThen", "said.\n\nThen"),
        (r"of their\northern coast", r"of their\northern coast"),
        (r"a second\team", r"a second\team"),
        (r"cost \$10", r"cost \$10"),
    ],
)
def test_a_backslash_n_is_a_line_break_unless_a_lower_case_letter_follows(
    written: str, expected: str
) -> None:
    (record,) = read_text(f'"1","Title","{written}"\n')

    assert (record.values or {})["description"] == expected


def test_classes_are_numbered_from_one() -> None:
    read = read_text('"1","a","b"\n"4","c","d"\n')

    assert [(record.values or {})["label"] for record in read] == [1, 4]
    assert [(record.number, record.line) for record in read] == [(1, 1), (2, 2)]


@pytest.mark.parametrize("bad", ["0", "-1", "x", "", "1.0", "²"])
def test_a_class_that_is_not_an_integer_from_one_is_a_bad_row(bad: str) -> None:
    read = read_text(f'"{bad}","a","b"\n"1","c","d"\n')

    assert [record.problem for record in read] == [
        f'class "{bad}" is not an integer of at least 1',
        None,
    ]


def test_a_missing_closing_quote_costs_one_row() -> None:
    lines = [ag_news_line(i % 4 + 1, f"title {i}", f"text {i}") for i in range(20)]
    lines[5] = lines[5].replace('5"\n', "5\n")

    read = read_text("".join(lines))

    assert [record.number for record in read if record.problem] == [6]
    assert len(read) == 20


def test_it_is_distinguished_from_other_csv_by_its_first_line(tmp_path: Path) -> None:
    own, other = tmp_path / "own.csv", tmp_path / "other.csv"
    own.write_text(ag_news_line(2, "a", "b"), encoding="utf-8")
    other.write_text('label,text\n"3","a"\n', encoding="utf-8")

    assert detect(own) == "ag_news_csv"
    assert detect(other) == "csv"


def test_the_official_test_has_7600_good_rows(shared_data: Path) -> None:
    read = list(open_file(shared_data / "ag_news" / "test.csv").records(None))

    assert len(read) == 7600
    assert {record.problem for record in read} == {None}
    assert {(record.values or {})["label"] for record in read} == {1, 2, 3, 4}

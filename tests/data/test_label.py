"""Labels: a value means the class of its name, whatever the format of its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from pennyweight.data.ingest import ReadOptions, Rows, read_rows
from pennyweight.data.source import Source

Read = Callable[..., Rows]
Message = Callable[[Callable[[], object]], str]


def lines(*labels: object) -> str:
    rows = [{"text": f"text {number}", "label": label} for number, label in enumerate(labels)]
    return "\n".join(map(json.dumps, rows))


@pytest.mark.parametrize(
    ("labels", "values", "expected"),
    [
        (("1", "0", "2"), (1, 0, 2), [0, 1, 2]),
        (("1", "2", "3"), (1, 2, 3), [0, 1, 2]),
        (("0", "1"), (0.0, 1.0), [0, 1]),
        (("-1", "1"), (-1, 1), [0, 1]),
        (("false", "true"), (False, True), [0, 1]),
        (("yes", "no"), ("no", "Yes"), [1, 0]),
        (("a", "b"), (1, 0), [1, 0]),
        (("0.5", "1.0", "1.5"), (1.5, 1, 0.5), [2, 1, 0]),
        (("1.0", "2.0"), (1, 2.0), [0, 1]),
    ],
)
def test_numbers_and_booleans_are_looked_up_by_name_in_every_format(
    read: Read, labels: tuple[str, ...], values: tuple[object, ...], expected: list[int]
) -> None:
    rows = "".join(f"text {number},{value}\n" for number, value in enumerate(values))

    from_jsonl = read(lines(*values), "rows.jsonl", labels=labels)
    from_csv = read(f"text,label\n{rows}", labels=labels)

    assert from_jsonl.table["label"][:] == from_csv.table["label"][:] == expected


def test_an_index_is_refused_where_labels_are_numbers(read: Read, message: Message) -> None:
    text = message(lambda: read(lines(1, 0), "rows.jsonl", labels=("1", "2", "3")))

    assert "rows.jsonl: row 2 (line 2): label 0 is not one of 1, 2, 3 (a number is the name" in text


def test_an_unknown_label_is_named_with_the_closest_one(read: Read, message: Message) -> None:
    text = message(lambda: read("text,label\na b,Sport\n"))

    assert 'row 1 (line 2): label "Sport" is not one of World, Sports' in text
    assert 'did you mean "Sports"?' in text


def test_many_labels_and_long_values_are_shortened_in_messages(
    read: Read, message: Message
) -> None:
    labels = tuple(f"class {number}" for number in range(1000))

    text = message(lambda: read(f"text,label\na b,{'x' * 5000}\n", labels=labels))

    assert "and 988 more" in text
    assert len(text) < 600


def test_the_numbered_classes_of_ag_news_are_indices_from_one_or_names(read: Read) -> None:
    content = '"1","a","b"\n"3","c","d"\n'

    assert read(content).table["label"][:] == [0, 2]
    by_name = read(content, "b.csv", labels=("3", "1", "2", "4"))
    assert by_name.table["label"][:] == [1, 0]


def test_class_names_of_a_file_go_before_its_numbers(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["5", "1"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)
    rows.to_parquet(tmp_path / "rows.parquet")

    options = ReadOptions(("1", "5"), (), "stop", tmp_path / "cache")
    read = read_rows("rows", Source(str(tmp_path / "rows.parquet")), options)

    assert read.table["label"][:] == [1, 0]


@pytest.mark.parametrize(
    ("content", "name", "fields"),
    [
        (lines(["b", "a"], [], ["c"]), "rows.jsonl", {}),
        (lines([1, 0], [], [2]), "rows.jsonl", {}),
        ("text,label\nx y,b|a\nx z, \nx w,c\n", "rows.csv", {"label_separator": "|"}),
        (
            "text,c,a,b\nx y,0,1,1\nx z,0,0,0\nx w,1,0,0\n",
            "rows.csv",
            {"label_columns": ("c", "a", "b")},
        ),
        ("text,c,a,b\nx y,0,1,1\nx z,0,0,0\nx w,true,false,0.0\n", "rows.csv", {}),
    ],
)
def test_several_labels_are_read_from_lists_joined_text_and_columns(
    read: Read, content: str, name: str, fields: dict[str, object]
) -> None:
    rows = read(content, name, labels=("a", "b", "c"), task="multi-label", **fields)

    assert rows.table["label"][:] == [[0, 1], [], [2]]
    assert rows.table.features["label"] == datasets.List(datasets.Value("int64"))


def test_unlabelled_rows_of_a_multi_label_task_are_marked(read: Read) -> None:
    rows = read("text\na b\n", labels=("a", "b"), task="multi-label", labelled=False)

    assert rows.table["label"][:] == [[-1]]


def test_mistakes_in_several_labels_say_how_to_go_on(read: Read, message: Message) -> None:
    labels = ("a", "b", "c")

    def read_it(content: str, **fields: object) -> Callable[[], object]:
        return lambda: read(content, labels=labels, **fields)

    text = message(read_it("text,label\nx y,a;b\n", task="multi-label"))
    assert 'label "a;b" is not one of a, b, c; if ";" joins several labels, set' in text
    assert 'data.label_separator = ";"' in text

    text = message(lambda: read(lines(["a", "b"]), "rows.jsonl", labels=labels))
    assert 'if a row can have several labels, set data.task = "multi-label"' in text
    columns = {"label_columns": ("a", "b", "c"), "task": "multi-label"}
    text = message(read_it("text,a,b,c\nx y,0,2,1\n", **columns))
    assert 'column "b" holds "2", not 0 or 1' in text
    text = message(read_it("text,a,b\nx y,0,1\n", task="multi-label", label_columns=("a", "b")))
    assert "the label columns are a, b, and the labels are a, b, c" in text
    text = message(read_it("text,a,b,c\nx y,0,1,1\n", label_columns=("a", "b", "c")))
    assert 'the task is single-label; set data.task = "multi-label"' in text


def test_numbers_that_are_read_as_indices_are_noted_with_their_meaning(
    read: Read, tmp_path: Path
) -> None:
    note = read("text,label\na,1\nb,0\n", labels=("no", "yes")).note
    assert note.endswith(
        'rows.csv: numbers are read as indices of the classes: 0 is "no", 1 is "yes"'
    )
    assert read(lines(0, 1), "rows.jsonl", labels=("no", "yes")).note.endswith('1 is "yes"')
    assert read("text,label\na,yes\nb,no\n", labels=("no", "yes")).note == ""
    assert read("text,label\na,1\nb,0\n", labels=("0", "1")).note == ""
    assert read('"1","a","b"\n"2","c","d"\n').note == ""

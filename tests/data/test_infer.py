"""Inference: what a user's file is, from its labelled rows alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from pennyweight.data.infer import Inferred, infer
from pennyweight.data.ingest import ReadOptions, read_rows
from pennyweight.data.source import Source

Message = Callable[[Callable[[], object]], str]
Infer = Callable[..., Inferred]


@pytest.fixture
def infer_from(tmp_path: Path) -> Infer:
    """Write content to a file, and infer from it."""

    def call(content: str, name: str = "rows.csv", **fields: Any) -> Inferred:
        (tmp_path / name).write_text(content, encoding="utf-8")
        columns = {key: fields.pop(key) for key in ("label_columns",) if key in fields}
        return infer(Source(str(tmp_path / name), **columns), **fields)

    return call


def jsonl(*labels: object, key: str = "label") -> str:
    rows = [{"text": f"text {number}", key: label} for number, label in enumerate(labels)]
    return "\n".join(map(json.dumps, rows))


def csv_of(*labels: object, key: str = "label") -> str:
    rows = [f'text {number},"{label}"' for number, label in enumerate(labels)]
    return "\n".join([f"text,{key}", *rows])


@pytest.mark.parametrize(
    ("values", "labels", "order"),
    [
        (("b", "B", "a", "b"), ("B", "a", "b"), "sorted as text"),
        ((10, 9, 2, 9), ("2", "9", "10"), "by value"),
        ((1, -1, 1), ("-1", "1"), "by value"),
        ((True, False, True), ("false", "true"), "false before true"),
        ((1.0, 0.0, 1.0), ("0", "1"), "by value"),
        (("x", 1, 2), ("1", "2", "x"), "sorted as text"),
    ],
)
def test_labels_are_the_same_from_csv_and_jsonl_in_a_stated_order(
    infer_from: Infer, values: tuple[object, ...], labels: tuple[str, ...], order: str
) -> None:
    from_jsonl = infer_from(jsonl(*values), "rows.jsonl")
    from_csv = infer_from(csv_of(*values))

    assert from_jsonl == from_csv
    assert (from_csv.labels, from_csv.order) == (labels, order)
    assert from_csv.task == "single-label"
    assert (from_csv.rows, sum(from_csv.counts)) == (len(values), len(values))


def test_inferred_labels_read_every_row(infer_from: Infer, tmp_path: Path) -> None:
    inferred = infer_from(csv_of("True", "false", "True"))

    options = ReadOptions(inferred.labels, (), "stop", tmp_path / "cache")
    rows = read_rows("rows", Source(str(tmp_path / "rows.csv")), options)

    assert rows.table["label"][:] == [1, 0, 1]


@pytest.mark.parametrize("is_list", [False, True])
def test_class_names_of_a_saved_dataset_keep_their_order(is_list: bool, tmp_path: Path) -> None:
    kind = datasets.ClassLabel(names=["spam", "ham", "never"])
    label = datasets.List(kind) if is_list else kind
    values = [[0], [1, 0], []] if is_list else [0, 1, -1]
    datasets.Dataset.from_dict(
        {"text": ["a", "b", "c"], "label": values},
        features=datasets.Features({"text": datasets.Value("string"), "label": label}),
    ).save_to_disk(tmp_path / "saved")

    inferred = infer(Source(str(tmp_path / "saved")))

    assert inferred.labels == ("spam", "ham", "never")
    assert inferred.order == "in the order that the file lists"
    assert inferred.task == ("multi-label" if is_list else "single-label")
    assert inferred.counts == ((2, 1, 0) if is_list else (1, 1, 0))


def test_a_thousand_classes_are_inferred_and_read(infer_from: Infer, tmp_path: Path) -> None:
    inferred = infer_from(csv_of(*(f"class {number % 1000:04}" for number in range(3000))))

    assert len(inferred.labels) == 1000
    assert set(inferred.counts) == {3}
    options = ReadOptions(inferred.labels, (), "stop", tmp_path / "cache")
    rows = read_rows("rows", Source(str(tmp_path / "rows.csv")), options)
    assert rows.table["label"][:] == [number % 1000 for number in range(3000)]


@pytest.mark.parametrize("content", [jsonl(1, 3.7), csv_of(1, 3.7), csv_of("-.5", "2")])
def test_fractions_are_refused_as_regression(
    infer_from: Infer, content: str, message: Message
) -> None:
    name = "rows.jsonl" if content.startswith("{") else "rows.csv"

    text = message(lambda: infer_from(content, name))

    assert f"{name}: row " in text
    assert "regression is not supported: the label" in text
    assert "round the values to classes" in text


def test_labels_that_hardly_recur_are_refused(infer_from: Infer, message: Message) -> None:
    text = message(lambda: infer_from(csv_of(*range(100))))
    assert text.startswith("regression is not supported: ")
    assert 'the column "label" has 100 different values in 100 rows; round them' in text

    text = message(lambda: infer_from(csv_of(*(f"note {number}" for number in range(100)))))
    assert "are not classes; name the column of the label with label_column" in text

    text = message(lambda: infer_from(csv_of("a", "a")))
    assert 'the column "label" holds only the label "a"' in text


def test_rows_that_cannot_be_read_are_named_where_the_labels_do_not_suffice(
    infer_from: Infer, message: Message
) -> None:
    text = message(lambda: infer_from("text,label\na, b,x\nc, d,y\n"))
    assert 'no row has a label in the column "label"; 2 rows cannot be read, first row 1' in text

    text = message(lambda: infer_from(f"{jsonl('a')}\n{{broken\n", "rows.jsonl"))
    assert 'holds only the label "a"; one row cannot be read, first row 2 (line 2): ' in text


def test_a_label_that_may_be_a_missing_one_is_noted(infer_from: Infer) -> None:
    notes = infer_from(csv_of("a", "NaN", "a", "NaN")).notes
    assert any('the label "NaN" is a class; if it stands for' in note for note in notes)
    assert infer_from(csv_of("a", "n/a", "a", "n/a")).notes == ()


def test_lists_and_columns_of_flags_are_several_labels(infer_from: Infer) -> None:
    lists = infer_from(jsonl(["b", "a"], [], ["b"], "c"), "rows.jsonl")
    assert (lists.task, lists.labels, lists.counts) == ("multi-label", ("a", "b", "c"), (1, 2, 1))

    flags = infer_from("text,x,y\na b,1,0\nc d,1,1\n", label_columns=("y", "x"))
    assert (flags.task, flags.labels, flags.counts) == ("multi-label", ("y", "x"), (1, 2))
    assert (flags.label_column, flags.label_columns) == (None, ("y", "x"))
    assert flags.named(Source("f")) == Source("f", text_columns=("text",), label_columns=("y", "x"))


@pytest.mark.parametrize("separator", ["|", ";", ","])
def test_a_separator_is_inferred_if_all_parts_are_labels_alone(
    infer_from: Infer, separator: str
) -> None:
    joined = f"a{separator} b"
    inferred = infer_from(csv_of("a", "b", joined, key="labels"))
    assert (inferred.task, inferred.label_separator) == ("multi-label", separator)
    assert (inferred.labels, inferred.counts) == (("a", "b"), (2, 2))
    assert f'"{separator}" joins several labels in the column "labels"' in inferred.notes[0]

    for content in (csv_of("a", "b", joined), csv_of("a", "c", joined, key="labels")):
        single = infer_from(content)
        assert (single.task, single.label_separator, single.notes) == ("single-label", None, ())


def test_a_given_task_or_separator_or_labels_are_kept(infer_from: Infer, message: Message) -> None:
    given = infer_from(csv_of("a/b", "c"), label_separator="/")
    assert (given.task, given.labels) == ("multi-label", ("a", "b", "c"))
    asked_for = infer_from(csv_of("a", "b", "a|b"), task="multi-label")
    assert asked_for.labels == ("a", "b")
    single = infer_from(csv_of("a", "b", "a|b", key="labels"), task="single-label")
    assert single.labels == ("a", "a|b", "b")
    ordered = infer_from(csv_of("1.5", "2.5"), labels=("2.5", "1.5"))
    assert (ordered.labels, ordered.order) == (("2.5", "1.5"), "as given")
    by_index = infer_from(jsonl(1, 0, 1, 7), "i.jsonl", labels=("x", "y"))
    assert by_index.counts == (1, 2)
    text = message(lambda: infer_from(jsonl(["a"], ["b"]), "r.jsonl", task="single-label"))
    assert 'column "label" holds lists, but data.task is "single-label"' in text


def test_columns_and_labels_that_nearly_coincide_are_noted(infer_from: Infer) -> None:
    inferred = infer_from("headline,queue\na b c,spam\nd e f,Spam\ng h i,spam\nj k l,Spam\n")

    assert inferred.text_columns == ("headline",)
    assert inferred.label_column == "queue"
    assert len(inferred.notes) == 2
    assert inferred.notes[1] == 'the labels "Spam" and "spam" differ only in case'


def test_pairs_are_inferred(infer_from: Infer) -> None:
    inferred = infer_from("premise,hypothesis,label\na,b,yes\nc,d,no\n")

    assert (inferred.text_columns, inferred.pair_columns) == ((), ("premise", "hypothesis"))
    assert inferred.named(Source("f")).pair_columns == ("premise", "hypothesis")


def test_rows_without_a_label_are_passed_over(infer_from: Infer) -> None:
    inferred = infer_from(jsonl("a", None, "b", " ", float("nan")), "rows.jsonl")

    assert (inferred.labels, inferred.rows) == (("a", "b"), 2)


def test_lists_that_were_written_as_text_are_refused(infer_from: Infer, message: Message) -> None:
    text = message(lambda: infer_from(csv_of("['a', 'b']", "['a']", key="labels")))
    assert 'the column "labels" holds lists that were written as text' in text
    assert 'join the labels with "|" instead' in text


def test_a_label_of_thousands_of_digits_is_a_name(infer_from: Infer) -> None:
    inferred = infer_from(csv_of("1" * 5000, "2", "2", "1" * 5000))
    assert (inferred.labels, inferred.order) == (("1" * 5000, "2"), "sorted as text")

"""Validation rows that are split off, and what is said about the rows of a run."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from pennyweight.data.compare import find_conflicts
from pennyweight.data.overlap import find_overlap
from pennyweight.data.source import Source
from pennyweight.data.splits import (
    OverlapPolicy,
    ReadOptions,
    SourceSet,
    SplitOptions,
    Splits,
    make_splits,
)
from pennyweight.data.stratify import largest_split, split_rows, strata_of
from pennyweight.errors import DataError

Make = Callable[..., Splits]
Write = Callable[..., Source]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def call(name: str, rows: Sequence[Sequence[str]], header: str = "label,text") -> Source:
        path = tmp_path / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header.split(","), *rows])
        return Source(str(path))

    return call


@pytest.fixture
def make(cache: Path) -> Make:
    def call(
        sources: SourceSet, *, fraction: float = 0.2, rule: Any = "remove", **fields: Any
    ) -> tuple[Splits, list[str]]:
        options = {"labels": ("a", "b", "c"), "clean": (), "on_bad_row": "stop", "cache": cache}
        lines: list[str] = []
        splits = make_splits(
            sources,
            read=ReadOptions(**(options | fields)),
            split=SplitOptions(validation_fraction=fraction, train_rows=None, seed=0),
            overlap=OverlapPolicy(rule=rule, similarity=0.8),
            log=lines.append,
        )
        return splits, lines[1:]

    return call


def rows_of(counts: dict[str, int]) -> list[tuple[str, str]]:
    return [(label, f"{label} {n} text") for label, count in counts.items() for n in range(count)]


def test_a_class_with_one_row_keeps_it_for_training(write: Write, make: Make) -> None:
    train = write("train", rows_of({"a": 10, "b": 9, "c": 1}))

    splits, notes = make(SourceSet(train))

    assert Counter(splits.train["label"][:]) == {0: 8, 1: 7, 2: 1}
    assert Counter(splits.validation["label"][:]) == {0: 2, 1: 2}
    assert notes == [
        "train: labels with a single row, which stays in training: c",
        'validation: no row has the label "c"',
    ]
    assert splits.notes == tuple(notes)


def test_a_class_without_rows_is_noted_for_every_set(write: Write, make: Make) -> None:
    train = write("train", rows_of({"a": 10, "b": 10}))
    test = write("test", [("a", "some other text")])

    _, notes = make(SourceSet(train, held_out={"test": test}))

    assert notes == [
        'train: no row has the label "c"',
        "test: no row has any of these 2 labels: b, c",
        'validation: no row has the label "c"',
    ]


@pytest.mark.parametrize("counts", [{"a": 20}, {"a": 1, "b": 1, "c": 1}])
def test_no_validation_rows_give_an_empty_table_of_the_same_columns(
    write: Write, make: Make, counts: dict[str, int]
) -> None:
    train = write("train", rows_of(counts))
    test = write("test", [("a", "some other text")])

    splits, _ = make(SourceSet(train, held_out={"test": test}), fraction=0.0 if "b" not in counts
                     else 0.2)  # fmt: skip

    assert len(splits.validation) == splits.sets["validation"].rows == 0
    assert splits.validation.features == splits.train.features
    assert len(splits.train) == sum(counts.values())
    assert splits.leaks == ()


def test_rows_split_off_that_a_held_out_set_has_are_dropped(write: Write, make: Make) -> None:
    rows = rows_of({"a": 10, "b": 10})
    sources = SourceSet(write("train", rows), held_out={"test": write("all", rows)})
    sources_of_half = SourceSet(write("train", rows), held_out={"test": write("test", rows[::2])})

    splits, notes = make(sources_of_half)

    assert not set(splits.validation["text"][:]) & {text for _, text in rows[::2]}
    assert len(splits.validation) == 4 - splits.dropped_from_validation
    assert splits.dropped_from_validation > 0
    assert splits.leaks == ()
    assert f"validation: {splits.dropped_from_validation} of the rows that were split" in notes[0]
    with pytest.raises(DataError, match="every row is also in validation or a held-out set"):
        make(sources)


def test_a_validation_file_that_shares_rows_with_a_test_still_leaks(
    write: Write, make: Make
) -> None:
    shared = [("a", "a shared text"), ("b", "another one")]
    sources = SourceSet(
        write("train", rows_of({"a": 3, "b": 3})),
        validation=write("validation", shared),
        held_out={"test": write("test", shared)},
    )

    splits, _ = make(sources)

    assert len(splits.validation) == 2
    assert splits.leaks[0].startswith("2 rows of validation are also in test")


def test_a_refused_overlap_counts_rows_that_were_split_off(write: Write, make: Make) -> None:
    rows = rows_of({"a": 10, "b": 10})

    for _, text in rows[:4]:
        test = write("test", [("a", text)])
        with pytest.raises(DataError, match=r'"refuse" was given, .*: 1 in test'):
            make(SourceSet(write("train", rows), held_out={"test": test}), rule="refuse")


def test_texts_under_different_labels_are_counted_with_an_example(write: Write, make: Make) -> None:
    rows = [
        *rows_of({"a": 4, "b": 4}),
        ("a", "the same text"),
        ("c", "The  same TEXT"),
        ("b", "the same text"),
        ("c", "a 0 text"),
        ("b", "b 0 text"),
    ]
    train = write("train", rows)

    _, notes = make(SourceSet(train), fraction=0.0)

    assert notes == [
        "train: 2 texts occur under different labels, for example in the rows 1 and 12 of "
        f"{train.location}"
    ]
    assert make(SourceSet(train), fraction=0.0)[1] == notes


def test_pairs_and_several_labels_conflict_as_a_whole() -> None:
    pairs = datasets.Dataset.from_dict(
        {"text": ["a", "a", "a"], "text_pair": ["x", "y", "X"], "label": [[0], [1], [0]],
         "row": [1, 2, 3]}
    )  # fmt: skip
    assert find_conflicts(pairs).texts == 0
    changed = pairs.remove_columns("label").add_column("label", [[0], [1], []])
    assert find_conflicts(changed).rows == (1, 3)


def test_the_text_of_a_pair_is_both_texts() -> None:
    def pairs(*rows: tuple[str, str]) -> datasets.Dataset:
        first, second = zip(*rows, strict=True)
        return datasets.Dataset.from_dict({"text": list(first), "text_pair": list(second)})

    (overlap,) = find_overlap(
        "train",
        pairs(("a b", "c d"), ("a b", "x"), ("a", "b c d")),
        {"test": pairs(("A b", "C  d"))},
        similarity=None,
    )

    assert overlap.exact_rows.tolist() == [0]


def test_sets_of_pairs_are_split_and_other_sets_must_be_pairs(write: Write, make: Make) -> None:
    header = "label,premise,hypothesis"
    rows = [("ab"[n % 2], f"premise {n}", f"hypothesis {n}") for n in range(20)]
    train = write("train", rows, header)

    splits, _ = make(SourceSet(train, held_out={"test": write("test", rows[:1], header)}))

    assert splits.train.column_names == ["text", "text_pair", "label", "row"]
    assert len(splits.train) + len(splits.validation) == 19
    with pytest.raises(DataError, match=r"test\.csv: no pair of text columns"):
        make(SourceSet(train, held_out={"test": write("test", [("a", "b")])}))


def test_several_labels_are_stratified_by_the_rarest(write: Write, make: Make) -> None:
    rows = [(("a" if n % 2 else "a|b") if n % 10 else "c|a", f"text {n}") for n in range(100)]
    train = write("train", rows)

    splits, notes = make(SourceSet(train), task="multi-label", label_separator="|")

    assert Counter(map(tuple, splits.validation["label"][:])) == {(0,): 10, (0, 1): 8, (0, 2): 2}
    assert notes == []


def test_the_rarest_label_of_a_row_is_its_stratum() -> None:
    table = datasets.Dataset.from_dict({"label": [[0, 1], [0], [], [0, 2], [2], [1, 2], [2]]})

    assert strata_of(table, 3).tolist() == [1, 0, -1, 0, 2, 1, 2]
    assert strata_of(table.select([3, 2]), 3).tolist() == [0, -1]
    assert strata_of(datasets.Dataset.from_dict({"label": [2, 0]}), 3).tolist() == [2, 0]


@pytest.mark.parametrize("rows", [0, 1, 7, 50, 100, 900, 1000])
def test_many_classes_share_few_validation_rows(rows: int) -> None:
    strata = np.concatenate([np.arange(200).repeat(6), np.arange(200, 205)])
    most, divided = largest_split(strata)
    assert (most, divided) == (1000, 200)

    chosen = split_rows(strata, rows, seed=3)

    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == rows
    remaining = np.delete(strata, chosen)
    assert len(np.unique(remaining)) == 205
    counts = np.bincount(strata[chosen], minlength=205)
    assert counts.max() - counts[:200].min() <= 1
    assert np.array_equal(chosen, split_rows(strata, rows, seed=3))

"""A split by hash: each row's text decides, whatever the other rows are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import arrow_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from pennyweight.data import splits as splits_module
from pennyweight.data import stratify
from pennyweight.data.hash_split import is_held_out
from pennyweight.data.source import Source
from pennyweight.data.splits import (
    OverlapPolicy,
    ReadOptions,
    SourceSet,
    SplitOptions,
    Splits,
    make_splits,
)
from pennyweight.errors import DataError

_TEXTS = [f"text {number}" for number in range(2000)]


@settings(max_examples=30)
@given(st.lists(st.text(max_size=5)), st.floats(0.0, 0.99), st.integers(0, 2**70))
def test_a_text_is_in_the_same_set_whatever_the_other_texts_are(
    texts: list[str], fraction: float, seed: int
) -> None:
    together = is_held_out(texts, fraction, seed=seed).tolist()
    alone = [bool(is_held_out([text], fraction, seed=seed)[0]) for text in texts]
    assert together == alone


def test_the_fraction_is_held_out_and_a_larger_one_holds_the_same_rows_and_more() -> None:
    few, many = (is_held_out(_TEXTS, fraction, seed=1) for fraction in (0.1, 0.3))
    # Four standard deviations.
    assert abs(few.mean() - 0.1) < 0.027
    assert abs(many.mean() - 0.3) < 0.041
    assert (many | ~few).all()
    assert not is_held_out(_TEXTS, 0.0, seed=1).any()
    assert not np.array_equal(few, is_held_out(_TEXTS, 0.1, seed=2))


def _split(path: Path, rows: list[str], cache: Path, **options: object) -> Splits:
    path.write_text("label,text\n" + "".join(f"{row}\n" for row in rows))
    return make_splits(
        SourceSet(train=Source(str(path))),
        read=ReadOptions(("a", "b"), (), "stop", cache),
        split=SplitOptions(**{"validation_fraction": 0.2, "train_rows": None, "seed": 3} | options),
        overlap=OverlapPolicy(rule="remove", similarity=0.8),
    )


def test_copies_of_a_text_are_in_the_same_set(tmp_path: Path, cache: Path) -> None:
    rows = [f"{'ab'[number % 2]},Some  text {number // 4}" for number in range(200)]
    rows += [row.replace("Some  ", "some ") for row in rows]

    splits = _split(tmp_path / "rows.csv", rows, cache, method="hash")

    assert splits.split == "hash"
    assert splits.removed == 0
    assert len(splits.train) + len(splits.validation) == 400
    assert len(splits.validation) % 8 == 0
    assert 0 < len(splits.validation) < 200
    numbers = [{int(text.split()[-1]) for text in table["text"]} for table in
               (splits.train, splits.validation)]  # fmt: skip
    assert not numbers[0] & numbers[1]
    assert (
        f"validation: {len(splits.validation)} of 400 rows are split off by a hash"
        in (splits.notes[0])
    )


def test_the_number_of_rows_decides_unless_the_method_is_given(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{'ab'[number % 2]},text {number}" for number in range(40)]
    assert _split(tmp_path / "rows.csv", rows, cache).split == "stratified"
    monkeypatch.setattr(splits_module, "MANY_ROWS", 39)
    assert _split(tmp_path / "rows.csv", rows, cache).split == "hash"
    assert _split(tmp_path / "rows.csv", rows, cache, method="stratified").split == "stratified"
    none = _split(tmp_path / "rows.csv", rows, cache, validation_fraction=0.0)
    assert (none.split, len(none.validation)) == (None, 0)


@pytest.mark.parametrize(
    ("rows", "fraction", "problem"),
    [
        (["a,one", "a,two", "b,three"], 0.001, "has no row for validation"),
        (["a,one", "a,two", "b,three", "b,four"], 0.9, "leaves no training row of "),
    ],
)
def test_a_split_by_hash_of_too_few_rows_is_refused(
    tmp_path: Path, cache: Path, rows: list[str], fraction: float, problem: str
) -> None:
    with pytest.raises(DataError, match=problem) as refusal:
        _split(tmp_path / "rows.csv", rows, cache, method="hash", validation_fraction=fraction)
    assert 'set data.split = "stratified"' in str(refusal.value)


def test_labels_of_selected_rows_are_read_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.Dataset.from_dict({"text": list("abcdefg"), "label": list(range(7))})
    read: list[int] = []
    query = arrow_dataset.query_table

    def recorded(*args: Any, **keys: Any) -> Any:
        result = query(*args, **keys)
        read.append(len(result))
        return result

    monkeypatch.setattr(arrow_dataset, "query_table", recorded)
    monkeypatch.setattr(stratify, "_BATCH_ROWS", 2)
    labels, sizes = stratify.label_lists(rows.select([0, 2, 3, 4, 6]))
    assert labels.tolist() == [0, 2, 3, 4, 6]
    assert sizes.tolist() == [1] * 5
    assert max(read) == 2
    assert [len(each) for each in stratify.label_lists(rows.select([]))] == [0, 0]

"""The order of rows: none is lost, seeds decide it, and grouped batches have little padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pennyweight.engine.batches import order as order_module
from pennyweight.engine.batches.order import Classes, epoch_batches, share

LENGTHS = np.random.default_rng(0).integers(3, 60, size=1000)


def _batches(lengths: np.ndarray, **options: Any) -> list[np.ndarray]:
    return list(epoch_batches(lengths, **options))


def _padding(batches: list[np.ndarray]) -> int:
    return sum(int((LENGTHS[b].max() - LENGTHS[b]).sum()) for b in batches)


@pytest.mark.parametrize("order", ["grouped", "random"])
def test_seed_and_epoch_decide_the_batches(order: str) -> None:
    def batches(seed: int, epoch: int) -> list[list[int]]:
        drawn = _batches(LENGTHS, batch_rows=16, order=order, seed=seed, epoch=epoch)
        return [batch.tolist() for batch in drawn]

    assert batches(1, 0) == batches(1, 0)
    assert batches(1, 0) != batches(1, 1)
    assert batches(1, 0) != batches(2, 0)


@pytest.mark.parametrize("order", ["grouped", "random"])
def test_training_begins_with_the_largest_batch(order: str) -> None:
    first, second = (
        [
            int(LENGTHS[batch].sum())
            for batch in _batches(LENGTHS, batch_rows=16, order=order, seed=1, epoch=epoch)
        ]
        for epoch in (0, 1)
    )
    assert first[0] == max(first)
    assert second[0] < max(second)


def test_grouped_batches_are_padded_far_less_than_random_ones() -> None:
    grouped, random = (
        _padding(_batches(LENGTHS, batch_rows=16, order=order, seed=1, epoch=0))
        for order in ("grouped", "random")
    )
    assert grouped < random / 5


@pytest.mark.parametrize("order", ["grouped", "random"])
@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-1, 3), min_size=1, max_size=120), st.integers(1, 20))
def test_a_balanced_epoch_has_as_many_rows_of_each_class_and_as_many_rows_in_all(
    order: str, labels: list[int], batch_rows: int
) -> None:
    classes, lengths = np.array(labels), LENGTHS[: len(labels)]

    def draw(epoch: int) -> list[np.ndarray]:
        options = {"batch_rows": batch_rows, "order": order, "seed": 1, "epoch": epoch}
        return _batches(lengths, classes=Classes(classes, are_balanced=True), **options)

    rows = np.concatenate(draw(1))
    assert len(rows) == len(labels)
    assert len(draw(1)) == -(-len(labels) // batch_rows)
    assert sorted(rows[classes[rows] < 0]) == np.flatnonzero(classes < 0).tolist()
    counts = np.unique(classes[rows][classes[rows] >= 0], return_counts=True)[1]
    assert len(counts) == 0 or counts.max() - counts.min() <= 1
    for label in set(labels) - {-1}:
        times = np.bincount(rows, minlength=len(labels))[classes == label]
        assert times.max() - times.min() <= 1
    assert [batch.tolist() for batch in draw(1)] == [batch.tolist() for batch in draw(1)]


def test_balanced_epochs_select_different_rows_of_a_frequent_class() -> None:
    classes = np.array([0] * 900 + [1] * 100)
    balanced = Classes(classes, are_balanced=True)
    options = {"batch_rows": 16, "order": "grouped", "seed": 1, "classes": balanced}
    first, second = (
        set(np.concatenate(_batches(LENGTHS, epoch=epoch, **options))) for epoch in (0, 1)
    )
    assert first != second
    largest = _batches(LENGTHS, epoch=0, **options)
    assert LENGTHS[largest[0]].sum() == max(LENGTHS[batch].sum() for batch in largest)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-1, 20), min_size=1, max_size=200), st.integers(1, 40))
def test_rows_of_a_class_stand_together_and_every_row_is_there_once(
    labels: list[int], batch_rows: int
) -> None:
    lengths, classes = LENGTHS[: len(labels)], Classes(np.array(labels))
    options = {"batch_rows": batch_rows, "order": "classes", "seed": 1, "epoch": 1}
    batches = _batches(lengths, classes=classes, **options)
    assert sorted(np.concatenate(batches)) == list(range(len(labels)))
    assert max(map(len, batches)) <= batch_rows


def test_most_rows_of_a_batch_have_another_of_their_class() -> None:
    labels = np.arange(1000) % 77
    classes = Classes(labels)
    options = {"batch_rows": 64, "seed": 1, "epoch": 1, "classes": classes}
    alone = {}
    for order in ("classes", "random"):
        batches = _batches(LENGTHS, order=order, **options)
        counts = [np.bincount(labels[batch], minlength=77)[labels[batch]] for batch in batches]
        alone[order] = float(np.mean(np.concatenate(counts) == 1))
    assert alone["classes"] < 0.02
    assert alone["random"] > 0.3


def test_a_row_with_several_labels_stands_with_its_rarest() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1], [-1, -1, -1]])
    assert Classes(labels).of_rows().tolist() == [1, 0, 0, -1, 2, -1]


def test_an_order_by_classes_needs_classes() -> None:
    with pytest.raises(ValueError, match="needs the classes"):
        _batches(LENGTHS, batch_rows=8, order="classes", seed=1, epoch=0)


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4))
def test_the_shares_of_all_processes_are_the_batch_and_equally_many(
    rows: int, parts: int, processes: int
) -> None:
    batch = np.arange(rows) * 3
    shares = [share(batch, parts=parts, process=p, processes=processes) for p in range(processes)]
    assert {len(pieces) for pieces in shares} == {parts}
    together = np.concatenate([piece for pieces in shares for piece in pieces])
    assert sorted(together) == batch.tolist()


@pytest.mark.parametrize("order", ["grouped", "random", "classes"])
@settings(max_examples=25)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 3), st.sampled_from([8, 40, 1000]))
def test_every_row_is_in_exactly_one_batch_of_an_epoch(
    order: str, rows: int, batch_rows: int, epoch: int, window: int
) -> None:
    options = {"batch_rows": batch_rows, "order": order, "seed": 1, "epoch": epoch}
    options["classes"] = Classes(np.arange(rows) % 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_module, "_BLOCK_ROWS", 8)
        patch.setattr(order_module, "MANY_ROWS", window)
        batches = _batches(LENGTHS[:rows], **options)
    assert sorted(np.concatenate(batches)) == list(range(rows))
    assert len(batches) == -(-rows // batch_rows)
    assert max(map(len, batches)) <= batch_rows
    assert sum(len(batch) != batch_rows for batch in batches) <= 1


def test_a_window_holds_whole_blocks_and_epochs_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "_BLOCK_ROWS", 10)
    monkeypatch.setattr(order_module, "MANY_ROWS", 100)
    options = {"batch_rows": 20, "order": "grouped", "seed": 1}
    first, second = (
        [set(batch.tolist()) for batch in _batches(LENGTHS, epoch=epoch, **options)]
        for epoch in (1, 2)
    )
    assert first != second
    rows = set[int]().union(*first[:5])
    assert {row // 10 * 10 + place for row in rows for place in range(10)} == rows
    assert rows != set(range(100))


def test_balanced_classes_are_balanced_over_all_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "_BLOCK_ROWS", 10)
    monkeypatch.setattr(order_module, "MANY_ROWS", 200)
    labels = np.repeat([0, 1], [900, 100])
    batches = _batches(
        LENGTHS,
        batch_rows=20,
        order="random",
        seed=1,
        epoch=0,
        classes=Classes(labels, are_balanced=True),
    )
    rows = np.concatenate(batches)
    assert np.bincount(labels[rows]).tolist() == [500, 500]

"""Tokenized rows: storage, selections and padded batches."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from pennyweight.engine.batches.rows import (
    HiddenStates,
    TeacherOutputs,
    TokenizedRows,
    TokenStore,
    collate,
    targets,
)


def _rows(**values: object) -> TokenizedRows:
    # Two chunks, as Arrow files have.
    chunks = [pa.array([[5, 6], [7]]), pa.array([[8, 9, 10, 11]])]
    store = TokenStore(pa.chunked_array(chunks))
    return TokenizedRows(store, np.array([2, 1, 4]), np.array([0, 1, 2]), padding=99, **values)  # type: ignore[arg-type]


def test_a_batch_is_padded_to_its_longest_row_and_the_mask_says_where() -> None:
    batch = collate(_rows(), np.array([1, 0]))
    assert batch["input_ids"].tolist() == [[7, 99], [5, 6]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]


def test_a_selection_of_a_selection_has_the_right_rows() -> None:
    selected = _rows().take(np.array([2, 0])).take(np.array([1, 0, 1]))
    assert [selected.ids(index).tolist() for index in range(3)] == [[5, 6], [8, 9, 10, 11], [5, 6]]
    assert selected.lengths.tolist() == [2, 4, 2]
    assert selected.labels.tolist() == [0, 2, 0]


def test_whatever_belongs_to_a_row_is_selected_with_it() -> None:
    rows = _rows(
        weights=np.array([1.0, 2.0, 3.0], dtype=np.float32),
        smoothing=np.array([0.1, 0.2, 0.3], dtype=np.float32),
        teacher=TeacherOutputs(torch.arange(6.0).view(3, 2), torch.arange(3.0)[:, None]),
        states=HiddenStates(torch.arange(7.0)[:, None], np.array([0, 2, 3]), range(1, 2)),
    )
    direct = targets(rows, np.array([2, 1]), "cpu")
    selected = rows.take(np.array([2, 1]))
    assert selected.states is not None
    states = selected.states.gather(np.arange(2), selected.lengths, 6)
    assert states.flatten().tolist() == [3.0, 4.0, 5.0, 6.0, 2.0, 0.0]
    for selection in (direct, targets(selected, np.arange(2), "cpu")):
        assert selection.labels.tolist() == [2, 1]
        assert selection.weights is not None
        assert selection.weights.tolist() == [3.0, 2.0]
        assert selection.smoothing is not None
        torch.testing.assert_close(selection.smoothing, torch.tensor([0.3, 0.2]))
        assert selection.teacher is not None
        assert selection.teacher.log_probabilities.tolist() == [[4.0, 5.0], [2.0, 3.0]]
        assert selection.teacher.features is not None
        assert selection.teacher.features.tolist() == [[2.0], [1.0]]

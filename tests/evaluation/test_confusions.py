"""The largest confusions, sorted."""

from __future__ import annotations

import numpy as np

from pennyweight.evaluation.confusions import Confusion, largest_confusions
from pennyweight.evaluation.metrics import measure


def test_confusions_are_sorted_by_rows_and_then_by_their_share() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    predicted = np.array([1, 1, 2, 0, 0, 1, 2])
    metrics = measure(np.eye(3)[predicted], labels, names=("a", "b", "c"))
    assert largest_confusions(metrics, limit=9) == (
        Confusion("a", "b", 2, 0.5),
        Confusion("b", "a", 1, 0.5),
        Confusion("a", "c", 1, 0.25),
    )
    assert len(largest_confusions(metrics, limit=1)) == 1

"""F1 from counts, for many resamples of the same rows at once."""

from __future__ import annotations

import numpy as np

__all__ = ["f1_of_counts", "macro_f1_of"]


def f1_of_counts(hits: np.ndarray, predicted: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Return F1, which is NaN where there is neither a label nor a prediction.

    Args:
        hits: number of right answers, of any shape.
        predicted: number of answers, of the same shape.
        support: number of labels, of the same shape.
    """
    both = predicted + support
    return np.divide(2.0 * hits, both, out=np.full(both.shape, np.nan), where=both > 0)


def macro_f1_of(f1: np.ndarray) -> np.ndarray:
    """Return the mean F1 of each resample over the classes that it has; 0 if it has none.

    Args:
        f1: float `[resamples, classes]`, NaN for a class that a resample leaves out.
    """
    present = np.isfinite(f1)
    return np.asarray(np.nansum(f1, axis=1) / np.maximum(present.sum(axis=1), 1))

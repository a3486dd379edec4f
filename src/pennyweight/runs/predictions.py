"""The predictions of finished runs on labelled sets, and whether two runs saw the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pennyweight.data.splits import SetFacts
from pennyweight.documents import DocumentError, load_arrays
from pennyweight.errors import RunError
from pennyweight.evaluation.answers import right_rows
from pennyweight.evaluation.paired_tests import McNemar, mcnemar
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import RunRecord

__all__ = ["LabelledPredictions", "load_predictions", "mcnemar_of_runs", "same_rows"]


@dataclass(frozen=True, slots=True)
class LabelledPredictions:
    """A run's answers on a labelled set, in the order of the set.

    Attributes:
        predicted: int `[rows]`, or `[rows, classes]` of 0 and 1 in a multi-label task.
        labels: of the same shape.
    """

    predicted: np.ndarray
    labels: np.ndarray


def load_predictions(run: Path, name: str) -> LabelledPredictions:
    """Read a run's predictions for a set.

    Raises:
        RunError: the run has none for the set, or the file cannot be read.
    """
    try:
        arrays = load_arrays(RunDirectory(run).predictions)
        return LabelledPredictions(arrays[name], arrays[f"{name}.labels"])
    except (OSError, KeyError, DocumentError):
        raise RunError(f"{run}: no predictions for the set {name}") from None


def same_rows(one: RunRecord, other: RunRecord, name: str) -> bool:
    """Return whether two runs evaluated the same rows of a set.

    Rows are the same if their fingerprints are equal. Cleaning changes the fingerprint: of runs
    with different cleaning steps, the source, the number of rows, the classes, and how validation
    rows were split off are compared.
    """
    first, second = _rows_of(one, name), _rows_of(other, name)
    if first is None or second is None:
        classes = [record.metrics[name].classes for record in (one, other)]
        sizes = [[(entry.label, entry.rows) for entry in each] for each in classes]
        return sizes[0] == sizes[1]
    if first.fingerprint == second.fingerprint:
        return True
    data, other_data = one.recipe.data, other.recipe.data
    return (
        data.clean != other_data.clean
        and data.labels == other_data.labels
        and (first.source, first.rows) == (second.source, second.rows)
        and (name != "validation" or _split_of(one) == _split_of(other))
    )


def mcnemar_of_runs(one: Path, other: Path, name: str) -> McNemar:
    """Return McNemar's test of two runs on a set that both have evaluated.

    Raises:
        RunError: a run has no predictions for the set, or the runs evaluated different rows.
    """
    first, second = load_predictions(one, name), load_predictions(other, name)
    if not np.array_equal(first.labels, second.labels):
        raise RunError(f"{one} and {other}: their {name} sets hold different rows")
    right = (right_rows(each.predicted, each.labels) for each in (first, second))
    return mcnemar(*right)


def _split_of(record: RunRecord) -> tuple[object, ...] | None:
    """Return what decides which rows are split off for validation; None if a file names them."""
    data = record.recipe.data
    if data.validation is not None:
        return None
    return (record.recipe.seed, data.split, data.validation_fraction, data.train_rows)


def _rows_of(record: RunRecord, name: str) -> SetFacts | None:
    return record.data.sets.get(name) if record.data else None

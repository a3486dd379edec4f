"""Whether a model that was made from a run still gives the run's answers, on real rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import datasets
import numpy as np

from pennyweight.data.ingest import read_rows
from pennyweight.data.source import Source
from pennyweight.engine.batches.tokenize import label_array
from pennyweight.errors import DataError
from pennyweight.evaluation.answers import right_rows
from pennyweight.evaluation.decisions import answers_of
from pennyweight.inference.classifier import Classifier

__all__ = [
    "Agreement",
    "CheckedRows",
    "calibration_rows",
    "compare_logits",
    "rows_to_check",
]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """Rows on which two models are compared.

    Attributes:
        source: where they come from.
        table: the rows, cleaned as in training.
        labels: int64 `[rows]`, or 0 and 1 `[rows, classes]`; None if they have none.
    """

    source: str
    table: datasets.Dataset
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.table)

    def accuracy(self, answers: np.ndarray) -> float | None:
        """Return the share of rows whose answer is right; None for rows without labels."""
        return None if self.labels is None else float(right_rows(answers, self.labels).mean())


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the logits of two models are apart.

    Attributes:
        largest_difference: between two logits.
        mean_difference: of all logits, without their signs.
        same_answers: share of the rows with the same label, or with the same labels.
        scale: the largest logit of the reference, without its sign.
    """

    largest_difference: float
    mean_difference: float
    same_answers: float
    scale: float

    @property
    def relative_difference(self) -> float:
        """The largest difference as a share of the largest logit, or of 1 if that is smaller."""
        return self.largest_difference / max(1.0, self.scale)


def compare_logits(classifier: Classifier, reference: np.ndarray, logits: np.ndarray) -> Agreement:
    """Compare the logits of two models on the same rows.

    Args:
        classifier: the run's, which turns logits into labels.
        reference: float32 `[rows, classes]`.
        logits: of the other model, of the same shape.
    """
    difference = np.abs(logits.astype(np.float64) - reference)
    first, second = (answers_of(each, classifier.thresholds) for each in (logits, reference))
    return Agreement(
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        same_answers=float(right_rows(first, second).mean()),
        scale=float(np.abs(reference).max()),
    )


def rows_to_check(
    classifier: Classifier, data: str | Source | None = None, *, limit: int
) -> CheckedRows:
    """Return some real rows for a comparison, taken at even distances from a file.

    Without `data`, they are those of the run's test, or of its validation file if the test cannot
    be read, and otherwise of the bundled sample, whose labels count only if they are the run's.

    Args:
        classifier: whose cleaning and columns are used.
        data: a file, "hub:NAME[:SPLIT]", "sample:SPLIT", or a `Source` that names columns.
        limit: the largest number of rows.

    Raises:
        DataError: `data` cannot be read, or nothing can.
    """
    if data is not None:
        source = Source(data) if isinstance(data, str) else data
        try:
            return _read(classifier, source, limit=limit, labelled=True)
        except DataError as error:
            rows = _read(classifier, source, limit=limit, labelled=False)
            _LOG.warning("answers are compared, and no accuracy is measured: %s", error)
            return rows
    sources = classifier.settings.data.sources
    own = (sources.held_out.get("test"), sources.validation)
    return _first_readable(classifier, own, sample="sample:test", limit=limit)


def calibration_rows(classifier: Classifier, *, limit: int) -> CheckedRows:
    """Return some training rows, or validation rows or rows of the sample; see `rows_to_check`.

    Raises:
        DataError: none can be read.
    """
    sources = classifier.settings.data.sources
    own = (sources.train, sources.validation)
    return _first_readable(classifier, own, sample="sample:train", limit=limit)


def _first_readable(
    classifier: Classifier, own: Sequence[Source | None], *, sample: str, limit: int
) -> CheckedRows:
    candidates = [(source, True) for source in own if source is not None]
    candidates += [(Source(sample), labelled) for labelled in (True, False)]
    for source, labelled in candidates:
        try:
            return _read(classifier, source, limit=limit, labelled=labelled)
        except DataError:
            continue
    raise DataError(
        "there are no rows to compare the models on: the run's own files cannot be read, and the "
        "bundled sample does not fit the run; name rows with --data FILE"
    )


def _read(classifier: Classifier, source: Source, *, limit: int, labelled: bool) -> CheckedRows:
    options = replace(
        classifier.settings.data.read,
        on_bad_row="set-aside",
        bad_rows=None,
        pairs=classifier.pair_columns is not None,
    )
    rows = read_rows("check", source, options, labelled=labelled)
    if not len(rows.table):
        raise DataError(f"{rows.source}: it has no rows to compare the models on")
    selected = np.unique(np.linspace(0, len(rows.table) - 1, limit).round().astype(np.int64))
    table = rows.table.select(selected)
    classes = classifier.settings.multi_label_classes
    # Of the whole table, because a selection keeps the column of all rows.
    labels = label_array(rows.table, classes)[selected] if labelled else None
    return CheckedRows(rows.source, table, labels)

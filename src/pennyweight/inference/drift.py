"""How far new text is from what a finished run was trained on, and how well the run will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from pennyweight.data.ingest import OnBadRow
from pennyweight.data.source import Source
from pennyweight.data.splits import Splits, make_splits
from pennyweight.engine.batches.tokenize import label_array
from pennyweight.errors import DataError
from pennyweight.evaluation.decisions import answers_of, class_shares
from pennyweight.evaluation.drift import (
    ExpectedAccuracy,
    FeatureDistance,
    KnownRows,
    expected_accuracy,
    feature_distance,
    rows_behind,
)
from pennyweight.evaluation.metrics import Metrics
from pennyweight.evaluation.thresholds import probabilities_of
from pennyweight.inference.classifier import BackendName, Classifier
from pennyweight.inference.evaluate import read_for
from pennyweight.inference.spool import open_input
from pennyweight.inference.texts import Text, texts_of
from pennyweight.lab.populations import separate
from pennyweight.runs.directory import RunDirectory

__all__ = ["ClassShare", "Drift", "drift"]

# More rows are sampled where texts are told apart or features are compared.
_MOST_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class ClassShare:
    """Share of the rows with a class: labels of training rows, and predictions for new rows.

    `training` is None where the training rows cannot be read any more.
    """

    label: str
    training: float | None
    predicted: float


@dataclass(frozen=True, slots=True)
class Drift:
    """How new rows differ from the rows of a run.

    Attributes:
        rows: number of new rows.
        text_area: area under the ROC curve of a discriminator of training and new texts by their
            character n-grams, cross-validated; 0.5 if they cannot be told apart. None if the
            training rows cannot be read.
        distance: of the hidden features of validation rows and new rows; None as above.
        shares: of each class.
        validation_accuracy: what the run reaches on its validation rows; None without any.
        expected: the accuracy to expect on the new rows, by each method; empty without validation
            rows, and for a multi-label run.
        notes: what could not be done, and why.
    """

    rows: int
    text_area: float | None
    distance: FeatureDistance | None
    shares: tuple[ClassShare, ...]
    validation_accuracy: float | None
    expected: tuple[ExpectedAccuracy, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def drift(
    run: str | Path,
    data: str | Source | Sequence[Text],
    *,
    on_bad_row: OnBadRow = "stop",
    backend: BackendName = "torch",
    seed: int = 0,
) -> Drift:
    """Compare new text with a run's training and validation rows, without labels.

    A run does not keep its rows: they are read again from where its recipe says. Where they are
    missing or have changed, only what the run's record holds is used, and a note says so.

    Args:
        run: the run's directory.
        data: a source, or its location, with "-" for standard input; or texts.
        on_bad_row: "stop", or "set-aside" to write bad rows to `RUN/bad_rows/drift.jsonl`.
        backend: what runs the model; with "onnx", features are not compared.
        seed: of samples, folds and resamples.

    Raises:
        RunError: it is no complete run.
        DataError: the rows cannot be read, or there are none.
        NonFiniteLogitsError: a logit is NaN or infinite.
    """
    classifier = Classifier.load(run, backend=backend)
    with open_input(data) as rows_in:
        table = read_for(classifier, run, rows_in, "drift", on_bad_row=on_bad_row).table
        if not len(table):
            raise DataError("drift: there are no rows to compare")
        return _compare(classifier, table, Path(run), with_features=backend == "torch", seed=seed)


def _compare(
    classifier: Classifier, table: datasets.Dataset, run: Path, *, with_features: bool, seed: int
) -> Drift:
    splits, notes = _read_again(classifier, run)
    new = classifier.outputs(table, features=with_features)
    probabilities = probabilities_of(new.logits, task=classifier.task)
    reference, is_validation = (None, False) if splits is None else _reference(splits, seed=seed)
    known, distance = _recorded_rows(classifier), None
    if reference is not None:
        outputs = classifier.outputs(reference, features=with_features)
        if outputs.features is not None and new.features is not None:
            distance = feature_distance(outputs.features, new.features, seed=seed)
        if is_validation and classifier.task == "single-label":
            reached = probabilities_of(outputs.logits, task="single-label")
            correct = reached.argmax(axis=1) == label_array(reference, None)
            known = KnownRows(reached.max(axis=1), correct)
        if not is_validation:
            notes += ("no validation rows: features are compared with those of training rows",)
    area = None
    if splits is not None:
        sample = texts_of(_sampled(table, seed=seed))
        separation = separate(texts_of(splits.train), sample, seed=seed)
        area = separation.area
        if area is None:
            notes += (f"the texts are not compared: {separation.refused}",)
    result = Drift(
        rows=len(table),
        text_area=area,
        distance=distance,
        shares=_shares(classifier, splits, new.logits),
        validation_accuracy=None,
        expected=(),
        notes=notes,
    )
    if known is None:
        return replace(result, notes=(*notes, _why_no_accuracy(classifier, run)))
    return replace(
        result,
        validation_accuracy=float(known.correct.mean()),
        expected=expected_accuracy(known, probabilities.max(axis=1), seed=seed),
    )


def _why_no_accuracy(classifier: Classifier, run: Path) -> str:
    if classifier.task == "multi-label":
        return (
            "no expected accuracy: the estimates are for one label per text, and the run is a "
            "multi-label run; label some rows and use pennyweight evaluate"
        )
    return (
        f"no expected accuracy: it needs validation rows, and {RunDirectory(run).record} has no "
        "metrics of any, because the run was trained without them; train again with "
        "data.validation = FILE or data.validation_fraction above 0"
    )


def _read_again(classifier: Classifier, run: Path) -> tuple[Splits | None, tuple[str, ...]]:
    """Return the run's rows, or None and the reason why they are not at hand."""
    data, recorded = classifier.settings.data, classifier.record.data
    fallback = (
        "; only what the run's record holds is used; to compare texts, features and training "
        f"shares as well, restore the rows that {RunDirectory(run).recipe} names"
    )
    try:
        splits = make_splits(
            replace(data.sources, target=None),
            read=data.read,
            split=data.split,
            overlap=data.overlap,
        )
    except DataError as error:
        return None, (f"the run's rows cannot be read again: {error}{fallback}",)
    for name in ("train", "validation"):
        facts = None if recorded is None else recorded.sets.get(name)
        if facts is None or facts.fingerprint != splits.sets[name].fingerprint:
            return None, (f"the run's {name} rows have changed since it was trained{fallback}",)
    return splits, ()


def _reference(splits: Splits, *, seed: int) -> tuple[datasets.Dataset, bool]:
    """Return the rows that features are compared with, and whether they are validation rows."""
    if len(splits.validation):
        return splits.validation, True
    return _sampled(splits.train, rows=1000, seed=seed), False


def _sampled(table: datasets.Dataset, *, seed: int, rows: int = _MOST_ROWS) -> datasets.Dataset:
    if len(table) <= rows:
        return table
    generator = np.random.default_rng((seed, 13))
    return table.select(np.sort(generator.permutation(len(table))[:rows]))


def _recorded_rows(classifier: Classifier) -> KnownRows | None:
    """Return the validation rows as far as the record describes them."""
    metrics = classifier.record.metrics.get("validation")
    return rows_behind(metrics) if isinstance(metrics, Metrics) else None


def _shares(
    classifier: Classifier, splits: Splits | None, logits: np.ndarray
) -> tuple[ClassShare, ...]:
    classes = len(classifier.labels)
    predicted = class_shares(answers_of(logits, classifier.thresholds), classes)
    training: Sequence[float | None] = [None] * classes
    if splits is not None:
        labels = label_array(splits.train, classifier.settings.multi_label_classes)
        training = class_shares(labels, classes).tolist()
    return tuple(
        ClassShare(*values)
        for values in zip(classifier.labels, training, predicted.tolist(), strict=True)
    )

"""What is done with a finished run: evaluate, predict, submit, merge."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax

from pennyweight.data.ingest import OnBadRow, Source
from pennyweight.data.splits import Reading, read_rows
from pennyweight.errors import DataError, RunError
from pennyweight.evaluation import Metrics, measure
from pennyweight.runs.classifier import Backend, Classifier
from pennyweight.runs.reading import reading_of
from pennyweight.runs.record import write_atomically

__all__ = ["evaluate", "merge", "predict", "submit"]


def evaluate(
    run: str | Path,
    data: str | Source,
    *,
    on_bad_row: OnBadRow = "stop",
    backend: Backend = "torch",
) -> Metrics:
    """Measure a run's classifier on labelled rows, cleaned and tokenized as in training.

    Args:
        run: the run's directory.
        data: a file, "hub:NAME[:SPLIT]", "sample:SPLIT", or a `Source` that names columns.
        on_bad_row: stop, or set bad rows aside in `RUN/bad_rows/evaluate.jsonl`.
        backend: what runs the model; see `Classifier.load`.

    Raises:
        RunError: it is no complete run.
        DataError: the rows cannot be read.
    """
    classifier = Classifier.load(run, backend=backend)
    rows = read_rows("evaluate", _source(data), _reading(classifier, run, on_bad_row))
    labels = np.asarray(rows.table.with_format("numpy")["label"][:])
    return measure(
        classifier.logits(rows.table),
        labels,
        names=classifier.labels,
        bins=classifier.recipe.evaluate.calibration_bins,
    )


def predict(
    run: str | Path,
    data: str | Source,
    *,
    out: str | Path,
    on_bad_row: OnBadRow = "stop",
    backend: Backend = "torch",
) -> int:
    """Write `row,label,confidence` and every class's probability for each row, as CSV.

    Returns:
        The number of rows written.

    Raises:
        RunError: it is no complete run, or `out` cannot be written.
        DataError: the rows cannot be read.
    """
    classifier = Classifier.load(run, backend=backend)
    rows = read_rows(
        "predict", _source(data), _reading(classifier, run, on_bad_row), labelled=False
    )
    probabilities = softmax(classifier.logits(rows.table).astype(np.float64), axis=1)
    numbers = rows.table.with_format("numpy")["row"][:]
    header = [
        "row",
        "label",
        "confidence",
        *(f"probability of {name}" for name in classifier.labels),
    ]
    lines = (
        [int(number), classifier.labels[int(row.argmax())], f"{row.max():.6f}"]
        + [f"{value:.6f}" for value in row]
        for number, row in zip(numbers, probabilities, strict=True)
    )
    _write_csv(Path(out), header, lines)
    return len(probabilities)


def submit(
    run: str | Path, data: str | Source, *, out: str | Path, backend: Backend = "torch"
) -> int:
    """Write a competition's submission: `ID,Label`, a row per input row in order, labels as ints.

    No row may be missing from a submission, so a bad row always stops it.

    Returns:
        The number of rows written.

    Raises:
        RunError: it is no complete run, or one over budget, or `out` cannot be written.
        DataError: the rows cannot be read, or their number does not match.
    """
    classifier = Classifier.load(run, backend=backend)
    counts = classifier.record.parameters
    if classifier.record.over_budget:
        raise RunError(
            f"{run}: {counts['model']:,} parameters were trained and {counts['budget']:,} are "
            "allowed: no submission, but a teacher; train a student with "
            f"--set 'distillation.teachers=[\"{run}\"]'"
        )
    rows = read_rows("submit", _source(data), _reading(classifier, run, "stop"), labelled=False)
    predicted = classifier.logits(rows.table).argmax(axis=1)
    if not len(predicted) == rows.read == len(rows.table):
        raise DataError(
            f"{rows.source}: {rows.read} rows in, {len(predicted)} labels out; nothing was written"
        )
    _write_csv(Path(out), ["ID", "Label"], ([i, int(label)] for i, label in enumerate(predicted)))
    return len(predicted)


def merge(run: str | Path, *, out: str | Path) -> None:
    """Write base and adapter as one plain transformers model; see `Classifier.merge`."""
    Classifier.load(run).merge(out)


def _source(data: str | Source) -> Source:
    return Source(location=data) if isinstance(data, str) else data


def _reading(classifier: Classifier, run: str | Path, on_bad_row: OnBadRow) -> Reading:
    aside = Path(run) / "bad_rows"
    return reading_of(classifier.recipe, bad_rows=aside, on_bad_row=on_bad_row)


def _write_csv(path: Path, header: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    if not path.parent.is_dir():
        raise RunError(f"--out {path}: there is no directory {path.parent}; make it first")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    write_atomically(path, text.getvalue())

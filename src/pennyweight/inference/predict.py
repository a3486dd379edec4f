"""Predict every row of a file with a finished run."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import datasets
import numpy as np
from scipy.special import softmax

from pennyweight.data.ingest import OnBadRow
from pennyweight.data.source import Source
from pennyweight.errors import RunError
from pennyweight.files import replacing
from pennyweight.inference.classifier import BackendName, Classifier
from pennyweight.inference.evaluate import read_for

__all__ = ["predict", "write_csv"]


def predict(
    run: str | Path,
    data: str | Source,
    *,
    out: str | Path,
    on_bad_row: OnBadRow = "stop",
    backend: BackendName = "torch",
) -> int:
    """Write `row,label,confidence` and every class's probability for each row, as CSV.

    Returns:
        The number of rows written.

    Raises:
        RunError: it is no complete run, or `out` cannot be written.
        DataError: the rows cannot be read.
        NonFiniteLogitsError: a logit is NaN or infinite; nothing is written.
    """
    classifier = Classifier.load(run, backend=backend)
    rows = read_for(classifier, run, data, "predict", on_bad_row=on_bad_row)
    columns = [f"probability of {name}" for name in classifier.labels]
    header = ["row", "label", "confidence", *columns]
    write_csv(Path(out), header, _lines(classifier, rows.table))
    return len(rows.table)


def _lines(classifier: Classifier, table: datasets.Dataset) -> Iterator[Sequence[object]]:
    numbers = iter(table.with_format("numpy")["row"][:].tolist())
    for chunk in classifier.stream(table):
        for probabilities in softmax(chunk.logits.astype(np.float64), axis=1):
            label = classifier.labels[int(probabilities.argmax())]
            yield (
                next(numbers),
                label,
                f"{probabilities.max():.6f}",
                *(f"{value:.6f}" for value in probabilities),
            )


def write_csv(path: Path, header: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Write a CSV file atomically, line by line.

    Raises:
        RunError: it cannot be written.
    """
    if not path.parent.is_dir():
        raise RunError(f"--out {path}: there is no directory {path.parent}; create it first")
    try:
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(lines)
    except OSError as error:
        raise RunError(f"--out {path}: cannot be written: {error.strerror}") from None

"""Write a competition's submission with a finished run."""

from __future__ import annotations

from pathlib import Path

from pennyweight.data.source import Source
from pennyweight.errors import DataError, RunError
from pennyweight.inference.classifier import BackendName, Classifier
from pennyweight.inference.evaluate import read_for
from pennyweight.inference.output import refuse_to_replace, write_rows
from pennyweight.inference.spool import open_input

__all__ = ["submit"]


def submit(
    run: str | Path, data: str | Source, *, out: str | Path, backend: BackendName = "torch"
) -> int:
    """Write `ID,Label`, one row per input row in order, with labels as indices.

    No row may be missing from a submission, so a bad row always stops it.

    Returns:
        The number of rows written.

    Raises:
        RunError: it is no complete run, or one over budget, or its rows have several labels, or
            `out` cannot be written or is the file of the rows.
        DataError: the rows cannot be read, or their number does not match.
        NonFiniteLogitsError: a logit is NaN or infinite; nothing is written.
    """
    refuse_to_replace(data, out)
    classifier = Classifier.load(run, backend=backend)
    counts = classifier.record.parameters
    if classifier.record.over_budget and counts is not None:
        raise RunError(
            f"{run}: {counts.model:,} parameters were trained and {counts.budget:,} are allowed, "
            "so it cannot be submitted; use it as a teacher: train a student with "
            f"--set 'distillation.teachers=[\"{run}\"]'"
        )
    if classifier.task == "multi-label":
        raise RunError(
            f"{run}: its rows may have several labels, and a submission has one per row; write the "
            "labels of each row with: pennyweight predict"
        )
    with open_input(data) as rows_in:
        rows = read_for(classifier, run, rows_in, "submit", on_bad_row="stop")
        predicted = classifier.outputs(rows.table).logits.argmax(axis=1)
    if not len(predicted) == rows.read == len(rows.table):
        raise DataError(
            f"{rows.source}: {rows.read} rows in, {len(predicted)} labels out; nothing was written"
        )
    lines = ({"ID": row, "Label": label} for row, label in enumerate(predicted.tolist()))
    write_rows(out, lines, columns=("ID", "Label"))
    return len(predicted)

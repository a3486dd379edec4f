"""Fold a finished run's adapter into its base, and compare the result with the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pennyweight.data.source import Source
from pennyweight.errors import RunError
from pennyweight.files import replace_directory
from pennyweight.inference.agreement import (
    Agreement,
    compare_logits,
    rows_to_check,
)
from pennyweight.inference.card_usage import merged_notes
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.load import plain_backend
from pennyweight.model.artifact import load_whole_model
from pennyweight.quiet import quiet_libraries
from pennyweight.runs.directory import require_empty

__all__ = ["MergeCheck", "MergeReport", "merge", "merge_into"]


@dataclass(frozen=True, slots=True)
class MergeCheck:
    """How a merged model is compared with its run.

    Attributes:
        data: the rows; None for the run's own, see `rows_to_check`.
        rows: the largest number of rows.
        tolerance: the largest allowed difference of logits, as a share of the largest logit.
    """

    data: str | Source | None = None
    rows: int = 200
    tolerance: float = 1e-3


@dataclass(frozen=True, slots=True)
class MergeReport:
    """A merged model, and how it compares with its run.

    Attributes:
        notes: what a user of the model has to do to get the run's predictions, such as cleaning.
        rows: number of rows that were compared.
        source: where they come from.
        agreement: of the merged model with the adapter beside its base, both in float32.
    """

    notes: tuple[str, ...]
    rows: int
    source: str
    agreement: Agreement

    def describe(self) -> str:
        """Return the comparison as one line."""
        return (
            f"logits of the run and the merged model differ by at most "
            f"{self.agreement.largest_difference:.2g}, on average by "
            f"{self.agreement.mean_difference:.2g}; same labels on "
            f"{self.agreement.same_answers:.2%} of {self.rows:,} rows of {self.source}"
        )


def merge(run: str | Path, *, out: str | Path, check: MergeCheck | None = None) -> MergeReport:
    """Write base and adapter as one plain transformers model; see `Classifier.merge`.

    The model is loaded from the written files and compared with the run's adapter on real rows,
    both in float32. A directory appears only if they agree.

    Args:
        run: the run's directory.
        out: the directory to write; it must be empty or missing.
        check: rows and tolerance of the comparison; None for the defaults.

    Raises:
        RunError: it is no complete run, `out` is not empty, the model cannot be merged, or the
            merged model differs from the run by more than the tolerance.
        DataError: the rows of the comparison cannot be read.
    """
    require_empty(Path(out))
    classifier = Classifier.load(run)
    reports: list[MergeReport] = []

    def write(directory: Path) -> None:
        reports.append(merge_into(directory, classifier, check or MergeCheck(), name=str(out)))

    replace_directory(Path(out), write)
    return reports[0]


@quiet_libraries()
def merge_into(
    directory: Path, classifier: Classifier, check: MergeCheck, *, name: str
) -> MergeReport:
    """Write a classifier as one plain model into an empty directory, and compare the two.

    Args:
        directory: where to write.
        classifier: of a finished run.
        check: rows and tolerance of the comparison.
        name: of the directory in messages.

    Raises:
        RunError: the model cannot be merged, or differs by more than the tolerance.
        DataError: the rows of the comparison cannot be read.
    """
    rows = rows_to_check(classifier, check.data, limit=check.rows)
    reference = classifier.unmerged().outputs(rows.table).logits
    classifier.merge(directory)
    model = load_whole_model(directory, attention="eager")
    backend = plain_backend(model, classifier.settings.inference)
    merged = classifier.with_backend(backend, is_folded=True).outputs(rows.table).logits
    agreement = compare_logits(classifier, reference, merged)
    report = MergeReport(merged_notes(classifier.record), len(rows), rows.source, agreement)
    if agreement.relative_difference > check.tolerance:
        raise RunError(
            f"{name}: not written: {report.describe()}; the tolerance is {check.tolerance:g} of "
            f"the largest logit, {agreement.scale:.3g}. Use the adapter without merging it, or "
            "allow more with --tolerance"
        )
    return report

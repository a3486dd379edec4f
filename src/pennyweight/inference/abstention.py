"""Abstaining: no label where the confidence is low."""

from __future__ import annotations

from pennyweight.errors import RunError
from pennyweight.evaluation.metrics import CoveragePoint, Metrics
from pennyweight.evaluation.selective import threshold_at
from pennyweight.runs.record import RunRecord

__all__ = ["check_abstention", "confidence_for", "validation_curve"]


def check_abstention(task: str, confidence: float) -> None:
    """Refuse to abstain where it has no meaning.

    Raises:
        RunError: the confidence is not in 0..1, or the run is a multi-label one.
    """
    if task == "multi-label":
        raise RunError(
            "abstaining needs a run with one label per text; this run gives a text any number of "
            "labels, and none where all probabilities are below their thresholds"
        )
    if not 0.0 <= confidence <= 1.0:
        raise RunError(f"abstain below {confidence}: expected a confidence from 0 to 1")


def confidence_for(record: RunRecord, coverage: float) -> float:
    """Return the confidence below which to abstain; see `Classifier.confidence_for`.

    Raises:
        RunError: the share is not above 0 and at most 1, the run is a multi-label one, or its
            record has no coverage-accuracy curve of validation rows.
    """
    check_abstention(record.recipe.data.task, 0.0)
    if not 0.0 < coverage <= 1.0:
        raise RunError(
            f"coverage (--coverage): given {coverage:g}; expected a share above 0 and at "
            "most 1, such as 0.9"
        )
    curve = validation_curve(record)
    if not curve:
        raise RunError(
            "coverage (--coverage): the run's record has no coverage-accuracy curve of "
            "validation rows; train it again with validation rows, or name a confidence to "
            "abstain below"
        )
    return threshold_at(curve, coverage)


def validation_curve(record: RunRecord) -> tuple[CoveragePoint, ...]:
    """Return the coverage-accuracy curve of the validation rows; empty if the run has none."""
    metrics = record.metrics.get("validation")
    return metrics.coverage if isinstance(metrics, Metrics) else ()

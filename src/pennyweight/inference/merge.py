"""Fold a finished run's adapter into its base."""

from __future__ import annotations

from pathlib import Path

from pennyweight.inference.classifier import Classifier
from pennyweight.inference.model_card import merged_notes

__all__ = ["merge"]


def merge(run: str | Path, *, out: str | Path) -> tuple[str, ...]:
    """Write base and adapter as one plain transformers model; see `Classifier.merge`.

    Returns:
        What a user of the model has to do to get the run's predictions, such as cleaning; the
        model's README.md says the same.

    Raises:
        RunError: it is no complete run, `out` is not empty, or the model cannot be merged.
    """
    classifier = Classifier.load(run)
    classifier.merge(out)
    return merged_notes(classifier.record)

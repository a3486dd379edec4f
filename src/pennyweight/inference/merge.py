"""Fold a finished run's adapter into its base."""

from __future__ import annotations

from pathlib import Path

from pennyweight.inference.classifier import Classifier

__all__ = ["merge"]


def merge(run: str | Path, *, out: str | Path) -> None:
    """Write base and adapter as one plain transformers model; see `Classifier.merge`.

    Raises:
        RunError: it is no complete run, `out` is not empty, or the model cannot be merged.
    """
    Classifier.load(run).merge(out)
